package epoll_test

import (
	"testing"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/backend/backendtest"
	"github.com/seed-80cfe818/ringloop/epoll"
)

func TestConformance(t *testing.T) {
	backendtest.Run(t, "epoll", func() (backend.Backend, error) { return epoll.New(nil) })
}
