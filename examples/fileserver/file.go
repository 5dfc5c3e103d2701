package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// file is a regular file that is open for reading, and its own fs.FileInfo. An
// *os.File would be offered to the poller of the runtime, and would ask the
// kernel for its position and again for what was known when it was opened; the
// system calls for that are as many as those that serve the file.
type file struct {
	*io.SectionReader // Read, Seek and ReadAt, and Size of fs.FileInfo
	fd                descriptor
	name              string
	mode              fs.FileMode
	modified          time.Time
}

// newFile takes over fd, of which st is the status.
func newFile(fd int, name string, st *unix.Stat_t) *file {
	f := &file{
		fd: descriptor{n: fd}, name: path.Base(name),
		mode: fs.FileMode(st.Mode & 0o777), modified: time.Unix(st.Mtim.Unix()),
	}
	f.SectionReader = io.NewSectionReader(&f.fd, 0, st.Size)
	return f
}

func (f *file) Close() error                          { return f.fd.close() }
func (f *file) Stat() (fs.FileInfo, error)            { return f, nil }
func (f *file) SyscallConn() (syscall.RawConn, error) { return &f.fd, nil }

func (f *file) Readdir(int) ([]fs.FileInfo, error) {
	return nil, &fs.PathError{Op: "readdir", Path: f.name, Err: syscall.ENOTDIR}
}

func (f *file) Name() string       { return f.name }
func (f *file) Mode() fs.FileMode  { return f.mode }
func (f *file) ModTime() time.Time { return f.modified }
func (f *file) IsDir() bool        { return false }
func (f *file) Sys() any           { return nil }

// descriptor is the open descriptor of a file. net/http reads several ranges on
// a goroutine of its own, which may still do so when the file is closed.
type descriptor struct {
	mu sync.Mutex
	n  int // -1 if it is closed
}

func (d *descriptor) close() (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.n < 0 {
		return os.ErrClosed
	}
	err = unix.Close(d.n)
	d.n = -1
	return err
}

// ReadAt is io.ReaderAt's, by pread(2).
func (d *descriptor) ReadAt(p []byte, off int64) (n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.n < 0 {
		return 0, os.ErrClosed
	}
	for n < len(p) {
		m, err := unix.Pread(d.n, p[n:], off+int64(n))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return n, err
		case m == 0:
			return n, io.EOF
		default:
			n += m
		}
	}
	return n, nil
}

// Control is syscall.RawConn's, of which a file needs no more.
func (d *descriptor) Control(f func(fd uintptr)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.n < 0 {
		return os.ErrClosed
	}
	f(uintptr(d.n))
	return nil
}

func (d *descriptor) Read(func(fd uintptr) bool) error  { return errors.ErrUnsupported }
func (d *descriptor) Write(func(fd uintptr) bool) error { return errors.ErrUnsupported }
