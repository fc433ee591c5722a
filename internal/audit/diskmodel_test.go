package audit

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// errCrashed is what a process that has died would see, if it could see.
var errCrashed = errors.New("crashed")

// disk is a file system in memory that can stop at any operation that changes
// it, as a process does that is killed and a machine that loses power, or fail
// in it. It knows
// what a power cut would leave: of a file what was synced, of a directory the
// entries that were, and of what came later some of it, in the order in which
// it came.
type disk struct {
	mu    sync.Mutex
	steps int   // operations that changed something
	crash int   // the operation at which it stops; 0: none
	part  int   // percent of a write that still happens in that operation
	fault error // instead of stopping, that operation fails with this one
	lossy bool  // what a failed sync did not write is zeros once the cache is dropped
	dead  bool
	wrote bool // that operation was a write

	names   map[string]*inode
	synced  map[string]*inode
	pending []func(names map[string]*inode) // changes of names since the directory was synced
	next    uint64
}

// inode is a file's content.
type inode struct {
	ino    uint64
	data   []byte
	synced int // bytes of data that a power cut leaves
	locked bool
	lost   bool // a sync failed, and the disk does not have the rest
}

func newDisk() *disk { return &disk{names: map[string]*inode{}, synced: map[string]*inode{}} }

// step counts an operation that changes something and reports whether it is to
// happen. Called with mu held.
func (d *disk) step() error {
	if d.dead {
		return errCrashed
	}
	if d.steps++; d.steps != d.crash {
		return nil
	}
	if d.fault != nil {
		return d.fault
	}
	d.dead = true
	return errCrashed
}

// name changes the directory, now and, once synced, for good. Called with mu
// held.
func (d *disk) name(change func(names map[string]*inode)) {
	change(d.names)
	d.pending = append(d.pending, change)
}

// killed returns the disk as the next process finds it: with all that was
// written.
func (d *disk) killed() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return reborn(d.names, d.next, func(i *inode) int { return len(i.data) })
}

// unplugged returns the disk as it is after a power cut: with what was synced,
// and keep percent of what came later.
func (d *disk) unplugged(keep int) *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := maps.Clone(d.synced)
	for _, change := range d.pending[:len(d.pending)*keep/100] {
		change(names)
	}
	return reborn(names, d.next, func(i *inode) int { return i.synced + (len(i.data)-i.synced)*keep/100 })
}

func reborn(names map[string]*inode, next uint64, size func(*inode) int) *disk {
	d, seen := newDisk(), map[*inode]*inode{}
	d.next = next
	for name, i := range names {
		if seen[i] == nil {
			data := bytes.Clone(i.data[:size(i)])
			seen[i] = &inode{ino: i.ino, data: data, synced: len(data)}
		}
		d.names[name], d.synced[name] = seen[i], seen[i]
	}
	return d
}

// log returns the whole of the log at path, segments first.
func (d *disk) log(path string) ([]byte, error) {
	all, err := segments(d, path)
	if err != nil {
		return nil, err
	}
	var whole []byte
	for _, s := range all {
		whole = append(whole, d.names[s.Name].data...)
	}
	return append(whole, d.names[path].data...), nil
}

func (d *disk) open(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names[name] != nil {
		return d.lock(d.names[name])
	}
	return d.make(name)
}

func (d *disk) create(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names[name] != nil {
		return nil, fs.ErrExist
	}
	return d.make(name)
}

func (d *disk) make(name string) (file, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	d.next++
	i := &inode{ino: d.next}
	d.name(func(names map[string]*inode) { names[name] = i })
	return d.lock(i)
}

func (d *disk) lock(i *inode) (file, error) {
	if i.locked {
		return nil, errInUse
	}
	i.locked = true
	return &diskFile{d: d, i: i}, nil
}

func (d *disk) state(i *inode) fileState {
	s := fileState{ino: i.ino, size: int64(len(i.data)), regular: true}
	for _, o := range d.names {
		if o == i {
			s.nlink++
		}
	}
	return s
}

func (d *disk) stat(name string) (fileState, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := d.names[name]; i != nil {
		return d.state(i), nil
	}
	return fileState{}, fs.ErrNotExist
}

func (d *disk) syncDir(string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	d.synced, d.pending = maps.Clone(d.names), nil
	return nil
}

func (d *disk) list(string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		names = append(names, filepath.Base(name))
	}
	return names, nil
}

func (d *disk) link(name, another string) error {
	return d.rearrange(name, another, func(names map[string]*inode) { names[another] = names[name] })
}

func (d *disk) rename(name, another string) error {
	return d.rearrange(name, "", func(names map[string]*inode) { names[another] = names[name]; delete(names, name) })
}

func (d *disk) remove(name string) error {
	return d.rearrange(name, "", func(names map[string]*inode) { delete(names, name) })
}

// rearrange changes the directory if name is there and unless is not.
func (d *disk) rearrange(name, unless string, change func(names map[string]*inode)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.names[name] == nil:
		return fs.ErrNotExist
	case d.names[unless] != nil:
		return fs.ErrExist
	}
	if err := d.step(); err != nil {
		return err
	}
	d.name(change)
	return nil
}

// diskFile is an open file of a disk.
type diskFile struct {
	d *disk
	i *inode
}

func (f *diskFile) ReadAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if off >= int64(len(f.i.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.i.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *diskFile) Write(b []byte) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	was := f.d.dead
	if err := f.d.step(); err != nil {
		part := 0
		if !was {
			f.d.wrote = true
			part = len(b) * f.d.part / 100
			f.i.data = append(f.i.data, b[:part]...)
		}
		return part, err
	}
	f.i.data = append(f.i.data, b...)
	return len(b), nil
}

func (f *diskFile) truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.step(); err != nil {
		return err
	}
	f.i.data = f.i.data[:size]
	f.i.synced = min(f.i.synced, int(size))
	return nil
}

func (f *diskFile) sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.step(); err != nil {
		f.i.lost = f.d.lossy
		return err
	}
	f.i.synced = len(f.i.data)
	return nil
}

func (f *diskFile) stat() (fileState, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return f.d.state(f.i), nil
}

func (f *diskFile) end() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.i.data)), nil
}

func (f *diskFile) evict() {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.i.lost {
		clear(f.i.data[f.i.synced:])
		f.i.lost = false
	}
}

func (f *diskFile) close() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if !f.i.locked {
		return syscall.EBADF
	}
	f.i.locked = false
	return nil
}
