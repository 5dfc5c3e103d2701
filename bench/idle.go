package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// idleCounts are how many connections are held.
var idleCounts = []int{1000, 18000}

// idleMemory is what connections cost that carried one byte and wait.
type idleMemory struct {
	Server      string
	Round       int
	Connections int
	Bytes       float64 // resident memory of the process per connection
}

// compareIdle measures resident memory with and without connections. Memory of
// the kernel is not in it.
func compareIdle(args []string) error {
	s := settings{name: "idle", rounds: 1, duration: time.Second}
	if err := s.parse(args); err != nil {
		return err
	}
	servers, missing, err := build(candidates("bin"), s.servers)
	if err != nil {
		return err
	}
	var all []idleMemory
	for round := range s.rounds {
		for i := range servers {
			ms, err := holdIdle(&s, &servers[i])
			if err != nil {
				s.fail(servers[i].name, err)
			}
			for _, m := range ms {
				m.Round = round
				all = append(all, m)
				fmt.Fprintf(os.Stderr, "idle %6d  round %d  %-26s %8.0f B a connection\n", m.Connections, round, m.Server, m.Bytes)
			}
		}
	}
	return s.write(all, idleTable(all, servers, missing))
}

func holdIdle(s *settings, c *candidate) (all []idleMemory, err error) {
	p, err := c.start(s.cpus, s.cores)
	if err != nil {
		return nil, err
	}
	var conns []net.Conn
	defer func() {
		p.stop()
		for _, conn := range conns {
			_ = conn.Close() // the server is gone
		}
	}()
	before, err := p.rssBytes()
	if err != nil {
		return nil, err
	}
	for _, n := range idleCounts {
		for len(conns) < n {
			conn, err := useOnce(p.addr)
			if err != nil {
				return all, fmt.Errorf("connection %d: %w", len(conns), err)
			}
			conns = append(conns, conn)
		}
		rss, err := p.rssBytes()
		if err != nil {
			return all, err
		}
		all = append(all, idleMemory{Server: c.name, Connections: n, Bytes: (rss - before) / float64(n)})
	}
	return all, nil
}

// useOnce connects and exchanges a byte, so that the server has accepted.
func useOnce(addr string) (net.Conn, error) {
	conn, err := net.Dial("tcp4", addr)
	if err != nil {
		return nil, err
	}
	b := []byte{1}
	err = errors.Join(conn.SetDeadline(time.Now().Add(10*time.Second)), conn.(*net.TCPConn).SetLinger(0))
	if err == nil {
		_, err = conn.Write(b)
	}
	if err == nil {
		_, err = conn.Read(b)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func idleTable(all []idleMemory, servers []candidate, missing []string) string {
	var b strings.Builder
	b.WriteString("Resident memory that the process gained per connection, median of the rounds, in bytes.\n")
	writeMissing(&b, missing)
	b.WriteString("\n| server |")
	for _, n := range idleCounts {
		fmt.Fprintf(&b, " %d connections |", n)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(idleCounts)) + "\n")
	for _, c := range servers {
		fmt.Fprintf(&b, "| %s |", c.name)
		for _, n := range idleCounts {
			var v []float64
			for _, m := range all {
				if m.Server == c.name && m.Connections == n {
					v = append(v, m.Bytes)
				}
			}
			if len(v) == 0 {
				b.WriteString(" - |")
				continue
			}
			fmt.Fprintf(&b, " %.0f |", median(v))
		}
		b.WriteString("\n")
	}
	return b.String()
}
