package audit

import (
	"io/fs"
	"sync"
	"syscall"
)

var errNoSpace = &fs.PathError{Op: "write", Path: "audit.jsonl", Err: syscall.ENOSPC}

// faultFS is the real file system until a fault is set.
type faultFS struct {
	osFS
	mu         sync.Mutex
	before     func()                      // at the start of each write
	beforeSync func()                      // … and sync
	write      func(b []byte) (int, error) // instead of a write; what it says was written, is
	fail       map[string]error            // :: operation → its error
	memory     bool                        // nothing is synced: for tests of many starts
	syncs      int
	evicts     int
}

type faultFile struct {
	file
	fs *faultFS
}

func (f *faultFS) set(fn func(*faultFS)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn(f)
}

// fault sets the error of one operation; nil ends it.
func (f *faultFS) fault(op string, err error) {
	f.set(func(f *faultFS) {
		if f.fail == nil {
			f.fail = map[string]error{}
		}
		f.fail[op] = err
	})
}

func (f *faultFS) err(op string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fail[op]
}

func (f *faultFS) open(name string) (file, error) {
	if err := f.err("open"); err != nil {
		return nil, err
	}
	o, err := f.osFS.open(name)
	if err != nil {
		return nil, err
	}
	return &faultFile{o, f}, nil
}

func (f *faultFS) create(name string) (file, error) {
	if err := f.err("create"); err != nil {
		return nil, err
	}
	o, err := f.osFS.create(name)
	if err != nil {
		return nil, err
	}
	return &faultFile{o, f}, nil
}

func (f *faultFS) stat(name string) (fileState, error) {
	if err := f.err("lstat"); err != nil {
		return fileState{}, err
	}
	return f.osFS.stat(name)
}

func (f *faultFS) list(dir string) ([]string, error) {
	if err := f.err("list"); err != nil {
		return nil, err
	}
	return f.osFS.list(dir)
}

func (f *faultFS) link(name, another string) error {
	if err := f.err("link"); err != nil {
		return err
	}
	return f.osFS.link(name, another)
}

func (f *faultFS) rename(name, another string) error {
	if err := f.err("rename"); err != nil {
		return err
	}
	return f.osFS.rename(name, another)
}

func (f *faultFS) remove(name string) error {
	if err := f.err("remove"); err != nil {
		return err
	}
	return f.osFS.remove(name)
}

func (f *faultFS) syncDir(name string) error {
	if err := f.err("syncDir"); err != nil {
		return err
	}
	if f.memory {
		return nil
	}
	return f.osFS.syncDir(name)
}

func (f *faultFile) Write(b []byte) (int, error) {
	f.fs.mu.Lock()
	before, instead := f.fs.before, f.fs.write
	f.fs.mu.Unlock()
	if before != nil {
		before()
	}
	if instead == nil {
		return f.file.Write(b)
	}
	n, err := instead(b)
	if m, werr := f.file.Write(b[:n]); werr != nil {
		return m, werr
	}
	return n, err
}

func (f *faultFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.fs.err("read"); err != nil {
		return 0, err
	}
	return f.file.ReadAt(b, off)
}

func (f *faultFile) stat() (fileState, error) {
	if err := f.fs.err("fstat"); err != nil {
		return fileState{}, err
	}
	return f.file.stat()
}

func (f *faultFile) truncate(n int64) error {
	if err := f.fs.err("truncate"); err != nil {
		return err
	}
	return f.file.truncate(n)
}

func (f *faultFile) sync() error {
	var before func()
	f.fs.set(func(f *faultFS) { f.syncs++; before = f.beforeSync })
	if before != nil {
		before()
	}
	if err := f.fs.err("sync"); err != nil {
		return err
	}
	if f.fs.memory {
		return nil
	}
	return f.file.sync()
}

func (f *faultFile) evict() {
	f.fs.set(func(f *faultFS) { f.evicts++ })
	f.file.evict()
}
