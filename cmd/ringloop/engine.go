package main

import (
	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

// tryFunc runs a loop on a backend, or on that of the loop's own choice if
// demand is empty, and returns what the backend uses and why it is that one. The
// error says why there is no such loop.
type tryFunc func(demand string) (backend.Features, string, error)

// candidates are the backends, the preferred one first.
var candidates = []string{"io_uring", "epoll"}

// tryLoop lets a loop do one turn, because a backend may still turn out not to
// work when it is bound to its thread.
func tryLoop(demand string) (fs backend.Features, reason string, err error) {
	var opts []loop.Option
	if demand != "" {
		opts = append(opts, loop.WithBackend(demand))
	}
	l, err := loop.NewEventLoop(opts...)
	if err != nil {
		return fs, "", err
	}
	l.Stop()
	if err = l.RunForever(); err == nil {
		fs, reason = l.Features(), l.BackendReason()
	}
	if closeErr := l.Close(); err == nil {
		err = closeErr
	}
	return fs, reason, err
}
