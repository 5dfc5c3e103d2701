package main

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// directory opens the files below a root, and none outside, wherever symbolic
// links lead. Responses send its files by sendfile.
type directory struct {
	root *os.Root
	dir  *os.File // the root again, for openat2
}

func openDirectory(name string) (*directory, error) {
	// O_DIRECTORY refuses a FIFO; os.OpenRoot would wait for its writer.
	dir, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return &directory{root: root, dir: dir}, nil
}

// close releases the root. Nothing was written that could get lost.
func (d *directory) close() {
	_ = d.dir.Close()
	_ = d.root.Close()
}

// Open opens a file by the cleaned path of a request, as http.FileSystem.
func (d *directory) Open(name string) (http.File, error) {
	name = strings.TrimPrefix(name, "/")
	if name == "" {
		name = "."
	}
	f, err := d.open(name)
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.ELOOP),
		strings.Contains(name, "\x00"):
		return nil, fs.ErrNotExist
	case errors.Is(err, syscall.ENXIO):
		return nil, fs.ErrPermission // a socket
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return nil, err
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return nil, fs.ErrPermission // the name leads out of the root
	}
	return nil, err
}

// open lets the kernel watch over the root: openat2(2) is one system call for
// any depth, where os.Root makes several per file. What the kernel does not
// open, os.Root tries again and says why. O_NONBLOCK keeps the opening of a FIFO
// from waiting for its writer.
func (d *directory) open(name string) (http.File, error) {
	fd, err := unix.Openat2(int(d.dir.Fd()), name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		f, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		return served(f)
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		return newFile(fd, name, &st), nil
	}
	return served(os.NewFile(uintptr(fd), name))
}

// served returns f if it is a file or a directory: reading anything else, such
// as a FIFO, might wait for ever, and the loop with it.
func served(f *os.File) (http.File, error) {
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err = fs.ErrPermission
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
