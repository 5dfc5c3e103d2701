package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
	"github.com/seed-80cfe818/ringloop/transport"
)

// services is what a loop serves.
type services struct {
	servers   []*transport.Server
	datagrams []*datagram
}

// listen makes the servers and writes their addresses to out. It returns what
// other loops share: the addresses that were bound, since port 0 would give them
// ports of their own, and each address of a host another one.
func (sv *services) listen(co *loop.Coro, cfg *config, out io.Writer) (*config, error) {
	others := &config{tls: cfg.tls, backend: cfg.backend, loops: cfg.loops}
	for _, addr := range cfg.tcp {
		bound, err := sv.listenTCP(co, cfg, addr)
		if err != nil {
			return nil, err
		}
		for _, name := range bound {
			fmt.Fprintln(out, "tcp", name)
		}
		others.tcp = append(others.tcp, bound...)
	}
	if cfg.unix != "" {
		if err := sv.listenUnix(co, cfg); err != nil {
			return nil, err
		}
		fmt.Fprintln(out, "unix", cfg.unix)
	}
	if cfg.udp != "" {
		bound, err := sv.listenUDP(co, cfg)
		if err != nil {
			return nil, err
		}
		fmt.Fprintln(out, "udp", bound)
		others.udp = bound
	}
	return others, nil
}

// listenTCP returns the addresses it has bound, one for each of the host's.
func (sv *services) listenTCP(co *loop.Coro, cfg *config, addr string) (bound []string, err error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("-addr: %w", err)
	}
	srv, err := transport.CreateServer(co, newStream, []string{host}, port, &transport.ServerOptions{
		TLS: cfg.tls, ReusePort: cfg.loops > 1,
	})
	if err != nil {
		return nil, err
	}
	sv.servers = append(sv.servers, srv)
	for _, s := range srv.Sockets() {
		name, err := s.LocalAddr()
		if err != nil {
			return nil, err
		}
		bound = append(bound, name.String())
	}
	return bound, nil
}

// listenUnix is for one loop, for a path cannot be shared.
func (sv *services) listenUnix(co *loop.Coro, cfg *config) error {
	path := cfg.unix
	if path[0] == '@' {
		path = "\x00" + path[1:]
	}
	srv, err := transport.CreateUnixServer(co, newStream, path, &transport.UnixServerOptions{TLS: cfg.tls})
	if err != nil {
		return err
	}
	sv.servers = append(sv.servers, srv)
	return nil
}

// listenUDP returns the address it has bound.
func (sv *services) listenUDP(co *loop.Coro, cfg *config) (bound string, err error) {
	local, err := udpAddr(cfg.udp)
	if err != nil {
		return "", fmt.Errorf("-udp: %w", err)
	}
	d := &datagram{lost: loop.CreateFuture[struct{}](co.Loop())}
	t, _, err := transport.CreateDatagramEndpoint(co, func() transport.DatagramProtocol { return d }, &transport.DatagramOptions{
		LocalAddr: local, ReusePort: cfg.loops > 1,
	})
	if err != nil {
		return "", err
	}
	sv.datagrams = append(sv.datagrams, d)
	name, _ := t.ExtraInfo(transport.ExtraSockName)
	return fmt.Sprint(name), nil
}

func udpAddr(s string) (transport.Addr, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return transport.Addr{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return transport.Addr{}, err
	}
	return sockapi.HostAddr(host, uint16(n)), nil
}

// end closes everything and waits for the clients, but not for ever.
func (sv *services) end(co *loop.Coro) error {
	for _, s := range sv.servers {
		s.Close()
		s.CloseClients()
	}
	for _, d := range sv.datagrams {
		d.t.Abort() // packets may be lost anyway
	}
	err := loop.Timeout(co, grace, func() error { return sv.wait(co) })
	if !errors.Is(err, loop.ErrTimeout) {
		return err
	}
	for _, s := range sv.servers {
		s.AbortClients()
	}
	return sv.wait(co)
}

// wait suspends the task until nothing is open any more.
func (sv *services) wait(co *loop.Coro) error {
	for _, s := range sv.servers {
		if err := s.WaitClosed(co); err != nil {
			return err
		}
	}
	for _, d := range sv.datagrams {
		if _, err := d.lost.Await(co); err != nil {
			return err
		}
	}
	return nil
}
