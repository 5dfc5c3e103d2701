package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"
)

// openedFile opens one of the files of a root as directory does.
func openedFile(t *testing.T, name string) (f *file, path string) {
	t.Helper()
	path = filepath.Join(makeRoot(t), name)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	f = newFile(fd, name, &st)
	t.Cleanup(func() { _ = f.Close() })
	return f, path
}

func TestAFileReadsAndTellsWhatOthersDo(t *testing.T) {
	f, path := openedFile(t, "sub/deep.json")
	if err := iotest.TestReader(f, content("sub/deep.json")); err != nil {
		t.Error(err)
	}
	got, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name() != want.Name() || got.Size() != want.Size() || got.Mode() != want.Mode() || got.IsDir() || !got.ModTime().Equal(want.ModTime()) {
		t.Errorf("it is %s of %d bytes, %s, %s; want %s of %d bytes, %s, %s", got.Name(), got.Size(), got.Mode(), got.ModTime(),
			want.Name(), want.Size(), want.Mode(), want.ModTime())
	}
	if _, err := f.Readdir(-1); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("Readdir = %v", err)
	}
}

func TestAFileThatShrankEndsEarly(t *testing.T) {
	f, path := openedFile(t, "page.css")
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, content("page.css")[:100]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestAFileClosesOnceAlsoWhileItIsRead(t *testing.T) {
	f, _ := openedFile(t, "page.css")
	begun := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		begin := sync.OnceFunc(func() { close(begun) })
		for {
			got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
			if errors.Is(err, os.ErrClosed) {
				return
			}
			if err != nil || !bytes.Equal(got, content("page.css")) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			begin()
		}
	})
	<-begun
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	reading.Wait()
	if err := f.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the second Close = %v", err)
	}
	if err := f.fd.Control(func(fd uintptr) { t.Errorf("the descriptor of the closed file is %d", fd) }); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Control = %v", err)
	}
}
