package load

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// RunTLS makes the load of a Config over TLS, with a goroutine per connection;
// CPUs is not used and Depth has to be 1. Connections are made before counting
// begins, and every byte that comes back is compared.
func RunTLS(cfg Config) (*Result, error) {
	if cfg.Connections < 1 || cfg.Size < 1 || cfg.Depth != 1 {
		return nil, fmt.Errorf("load: connections and size must be positive, depth 1: %+v", cfg)
	}
	conns := make([]net.Conn, cfg.Connections)
	for i := range conns {
		c, err := tls.Dial("tcp4", cfg.Addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return nil, fmt.Errorf("load: %w", err)
		}
		defer c.Close()
		conns[i] = c
	}
	data := pattern(cfg.Size)
	return forAll(cfg, func(i int, buf []byte) error {
		if _, err := conns[i].Write(data); err != nil {
			return err
		}
		if _, err := io.ReadFull(conns[i], buf); err != nil {
			return err
		}
		if string(buf) != string(data) {
			return errors.New("other bytes came back")
		}
		return nil
	})
}

// RunStorm makes connections, Config.Connections at the same time, sends a
// message on each, waits until it came back, and resets the connection, so that
// none is left waiting for its port. What it counts is connections.
func RunStorm(cfg Config) (*Result, error) {
	if cfg.Connections < 1 || cfg.Size < 1 {
		return nil, fmt.Errorf("load: connections and size must be positive: %+v", cfg)
	}
	data := pattern(cfg.Size)
	return forAll(cfg, func(_ int, buf []byte) error {
		c, err := net.Dial("tcp4", cfg.Addr)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.(*net.TCPConn).SetLinger(0); err != nil {
			return err
		}
		if _, err := c.Write(data); err != nil {
			return err
		}
		_, err = io.ReadFull(c, buf)
		return err
	})
}

// forAll calls once on a goroutine per connection, again and again, and counts.
func forAll(cfg Config, once func(i int, buf []byte) error) (*Result, error) {
	var phase atomic.Int32
	var all sync.WaitGroup
	workers := make([]*worker, cfg.Connections)
	errs := make([]error, cfg.Connections)
	for i := range workers {
		w := &worker{}
		workers[i] = w
		all.Go(func() {
			buf := make([]byte, cfg.Size)
			for phase.Load() != ended {
				from := now()
				if err := once(i, buf); err != nil {
					errs[i] = fmt.Errorf("load: connection %d: %w", i, err)
					return
				}
				w.total++
				if phase.Load() == counting {
					w.hist.Add(uint64(now() - from))
					w.messages++
				}
			}
		})
	}
	time.Sleep(cfg.Warmup)
	phase.Store(counting)
	from := time.Now()
	time.Sleep(cfg.Duration)
	phase.Store(ended)
	seconds := time.Since(from).Seconds()
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return collect(workers, seconds), nil
}
