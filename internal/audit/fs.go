package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// fileSystem is what the log needs of an operating system: the place where the
// tests of ATTACKS L4 put their faults. Errors carry the errno (errors.Is).
type fileSystem interface {
	// open opens name for reading and appending, creates it with mode 0600 if
	// it is not there, and locks it. It follows no symbolic link.
	open(name string) (file, error)
	// create makes a new file with mode 0600 and locks it; that it exists is an
	// error.
	create(name string) (file, error)
	// stat describes what name is now, without following a link.
	stat(name string) (fileState, error)
	// syncDir makes the entries of a directory durable.
	syncDir(name string) error
	// list returns the names in a directory.
	list(dir string) ([]string, error)
	// link, rename and remove are those of os. link and rename give one file
	// another name; rename replaces a file of that name at once.
	link(name, another string) error
	rename(name, another string) error
	remove(name string) error
}

// file is one open file. Only one goroutine uses it at a time, but for sync.
type file interface {
	io.ReaderAt
	io.Writer // appends
	stat() (fileState, error)
	end() (int64, error) // its size; unlike stat it leaves the inode's timestamps alone
	truncate(size int64) error
	sync() error // may be called while others write, and then has what was written before; os.ErrClosed if closed
	evict()      // asks the kernel to forget cached pages, so that reads come from the disk
	close() error
}

// fileState tells one file from another and shows what others did to it.
type fileState struct {
	dev, ino, nlink uint64
	size            int64
	regular         bool
	open            bool // users other than the owner have some right to it
}

func (s fileState) same(o fileState) bool { return s.dev == o.dev && s.ino == o.ino }

// errInUse means that another process holds the lock.
var errInUse = errors.New("another engine is writing it; give each engine its own --audit-file")

// osFS is the real one. Locks are flock(2): they belong to the open file, so
// they end with the process, however it ends.
type osFS struct{}

type osFile struct{ *os.File }

func (osFS) open(name string) (file, error) {
	return lock(os.OpenFile(name, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600))
}

func (osFS) create(name string) (file, error) {
	return lock(os.OpenFile(name, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600))
}

// lock locks what was opened, or gives it back.
func lock(f *os.File, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errInUse
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return osFile{f}, nil
}

func (osFS) list(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

func (osFS) link(name, another string) error   { return os.Link(name, another) }
func (osFS) rename(name, another string) error { return os.Rename(name, another) }
func (osFS) remove(name string) error          { return os.Remove(name) }

func (osFS) stat(name string) (fileState, error) {
	var st syscall.Stat_t
	if err := syscall.Lstat(name, &st); err != nil {
		return fileState{}, err
	}
	return stateOf(&st), nil
}

func (osFS) syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f osFile) stat() (fileState, error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		return fileState{}, err
	}
	return stateOf(&st), nil
}

// Write fails with the errno alone: the name that an os.File knows is the one
// it was opened by, and a rotation gives it another.
func (f osFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	return n, errnoOf(err)
}

func errnoOf(err error) error {
	if err == nil { // without an allocation
		return nil
	}
	if named := (*fs.PathError)(nil); errors.As(err, &named) {
		return named.Err
	}
	return err
}

// end asks by lseek(2). A stat of the file would make the next write stamp the
// inode anew (multigrain timestamps, Linux 6.13), which costs more than the write.
func (f osFile) end() (int64, error)       { return f.Seek(0, io.SeekEnd) }
func (f osFile) truncate(size int64) error { return errnoOf(f.Truncate(size)) }
func (f osFile) sync() error               { return syncData(f.File) }
func (f osFile) close() error              { return f.Close() }
func (f osFile) evict()                    { dropCache(f.Fd()) }

func stateOf(st *syscall.Stat_t) fileState {
	return fileState{
		dev:     uint64(st.Dev), //nolint:unconvert // narrower on other systems
		ino:     st.Ino,
		nlink:   uint64(st.Nlink), //nolint:unconvert // narrower on other systems
		size:    st.Size,
		regular: st.Mode&syscall.S_IFMT == syscall.S_IFREG,
		open:    st.Mode&0o077 != 0,
	}
}

// explain turns an error of opening name into one line with what to do.
func explain(name string, err error) error {
	dir := filepath.Dir(name)
	switch {
	case errors.Is(err, errInUse):
		return fmt.Errorf("audit log %s: %w", name, err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("audit log %s: there is no directory %s; create it, or name another file with --audit-file (%w)", name, dir, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("audit log %s: not writable by user %d; change the owner of %s, or name another file with --audit-file (%w)", name, os.Getuid(), dir, err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("audit log %s: the file system is read-only; mount a writable volume at %s (%w)", name, dir, err)
	case errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENXIO):
		return fmt.Errorf("audit log %s: not a regular file; name the file itself with --audit-file, or use --audit-stdout (%w)", name, err)
	default:
		return fmt.Errorf("opening audit log %s: %w", name, err)
	}
}

// noRoom reports whether err is one that passes when somebody makes room.
func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) ||
		errors.Is(err, syscall.EFBIG) || errors.Is(err, io.ErrShortWrite)
}
