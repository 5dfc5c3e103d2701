package transport

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
)

// exchange sends text to a transport's protocol and back.
func exchange(t *testing.T, co *loop.Coro, tr Transport, peer net.Conn, arrived func() string) {
	t.Helper()
	text, before := string(noise(30_000)), len(arrived())
	wait := elsewhere(t, co, func() error {
		if _, err := peer.Write([]byte(text)); err != nil {
			return err
		}
		got := make([]byte, len(text))
		if _, err := io.ReadFull(peer, got); err != nil {
			return err
		}
		if string(got) != text {
			return errors.New("the peer has got something else")
		}
		return nil
	})
	check(t, tr.Write([]byte(text)))
	wait()
	until(t, co, "everything is here", func() bool { return len(arrived()) >= before+len(text) })
	if arrived()[before:] != text {
		t.Error("something else arrived")
	}
}

func TestStartTLSUpgradesBothKindsOfProtocolInBothRoles(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, server := range []bool{false, true} {
			for _, buffered := range []bool{false, true} {
				ours, raw := blockingPair(t)
				plain, own := &recorder{}, &bufferRecorder{buf: make([]byte, 1000)}
				p, arrived, d := Protocol(plain), plain.data.String, &plain.diary
				if buffered {
					p, arrived, d = own, own.data.String, &own.diary
				}
				tr, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours})
				check(t, err)
				exchange(t, co, tr, raw, arrived)
				peer, config := tls.Server(raw, serverTLS()), trusting()
				if server {
					peer, config = tls.Client(raw, trusting()), serverTLS()
				}
				wait := elsewhere(t, co, peer.Handshake)
				secure, err := StartTLS(co, tr, p, config, &StartTLSOptions{ServerSide: server})
				check(t, err)
				wait()
				exchange(t, co, secure, peer, arrived)
				if secure.Protocol() != p {
					t.Error("the protocol is another one")
				}
				wait = elsewhere(t, co, peer.Close)
				check(t, d.untilLost(t, co))
				wait()
				d.want(t, "made", "eof", "lost")
			}
		}
	})
}

// proxied reads the header of the PROXY protocol, and hands the rest to TLS.
type proxied struct {
	recorder
	header string
	secure Transport
	eager  bool
}

func (p *proxied) DataReceived(data []byte) {
	if p.header != "" {
		p.recorder.DataReceived(data)
		return
	}
	line, rest, found := strings.Cut(string(data), "\r\n")
	if !found {
		panic("the header is split")
	}
	p.header = line
	tr := p.t
	if err := tr.PauseReading(); err != nil {
		panic(err)
	}
	loop.CreateTask(tr.Loop(), func(co *loop.Coro) (struct{}, error) {
		secure, err := StartTLS(co, tr, p, serverTLS(), &StartTLSOptions{ServerSide: true, Received: []byte(rest)})
		p.secure = secure
		return struct{}{}, err
	}, &loop.TaskOptions{EagerStart: p.eager})
}

// merged makes the first two writes of a connection one.
type merged struct {
	net.Conn
	first []byte
}

func (m *merged) Write(p []byte) (int, error) {
	if m.first == nil {
		return m.Conn.Write(p)
	}
	all := append(m.first, p...)
	m.first = nil
	_, err := m.Conn.Write(all)
	return len(p), err
}

func TestAPROXYHeaderAndAClientHelloInOneSegmentAreBothUnderstood(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, eager := range []bool{false, true} {
			ours, raw := blockingPair(t)
			p := &proxied{eager: eager}
			_, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours})
			check(t, err)
			const header = "PROXY TCP4 192.0.2.1 192.0.2.2 1234 443"
			peer := tls.Client(&merged{raw, []byte(header + "\r\n")}, trusting())
			elsewhere(t, co, peer.Handshake)()
			until(t, co, "TLS has started", func() bool { return p.secure != nil })
			if p.header != header || p.data.Len() > 0 {
				t.Errorf("the header is %q, and %d bytes", p.header, p.data.Len())
			}
			exchange(t, co, p.secure, peer, p.data.String)
			elsewhere(t, co, peer.Close)()
			check(t, p.untilLost(t, co))
			p.want(t, "made", "eof", "lost")
		}
	})
}

func TestStartTLSTakesWhatWasReceivedWhilePaused(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		ours, raw := blockingPair(t)
		p := &recorder{}
		tr, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours})
		check(t, err)
		check(t, tr.PauseReading())
		peer := tls.Client(raw, trusting())
		wait := elsewhere(t, co, func() error {
			if err := peer.Handshake(); err != nil {
				return err
			}
			_, err := peer.Write([]byte("at last"))
			return err
		})
		turns(t, co) // the ClientHello is parked, or on its way
		secure, err := StartTLS(co, tr, p, serverTLS(), &StartTLSOptions{ServerSide: true})
		check(t, err)
		wait()
		p.untilData(t, co, "at last")
		secure.Abort()
		check(t, p.untilLost(t, co))
	})
}

func TestDataWithTheLastRecordOfTheHandshakeIsDelivered(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, server := range []bool{true, false} {
			ours, raw := blockingPair(t)
			// In TLS 1.3 the client speaks last, in TLS 1.2 the server.
			held := &corked{Conn: raw}
			config := trusting()
			peer := tls.Client(held, config)
			if !server {
				config.MaxVersion = tls.VersionTLS12
				peer = tls.Server(held, serverTLS())
			}
			wait := elsewhere(t, co, func() error {
				if err := peer.Handshake(); err != nil {
					return err
				}
				_, err := peer.Write([]byte("first data"))
				if err == nil {
					err = held.uncork()
				}
				return err
			})
			p := &recorder{}
			var err error
			if server {
				_, _, err = ConnectAcceptedSocket(co, protocolOf(p), ours, &AcceptedOptions{TLS: serverTLS()})
			} else {
				_, _, err = CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours, TLS: config})
			}
			check(t, err)
			if p.data.String() != "first data" { // as in asyncio, before the task goes on
				t.Errorf("server %v: when the call returns there is %q", server, p.data.String())
			}
			wait()
			p.untilData(t, co, "first data")
			p.t.Abort()
			check(t, p.untilLost(t, co))
		}
	})
}

// corked keeps what is written after the first write until it is uncorked.
type corked struct {
	net.Conn
	kept  []byte
	wrote bool
}

func (c *corked) Write(p []byte) (int, error) {
	if !c.wrote {
		c.wrote = true
		return c.Conn.Write(p)
	}
	c.kept = append(c.kept, p...)
	return len(p), nil
}

func (c *corked) uncork() error {
	_, err := c.Conn.Write(c.kept)
	return err
}

func TestDataMayBeDeliveredBeforeTheConnectingTaskResumes(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		ours, raw := blockingPair(t)
		peer := tls.Server(raw, serverTLS())
		// In TLS 1.3 a server may write behind its own part of the handshake.
		p := &recorder{}
		resumed := false
		p.onData = func([]byte) {
			if resumed {
				p.note("data after the task")
			} else {
				p.note("data before the task")
			}
		}
		held := make(chan struct{})
		wait := elsewhere(t, co, func() error {
			defer close(held)
			if err := peer.Handshake(); err != nil {
				return err
			}
			_, err := peer.Write([]byte("welcome"))
			return err
		})
		tr, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours, TLS: trusting()})
		resumed = true
		check(t, err)
		wait()
		p.untilData(t, co, "welcome")
		if len(p.events) != 2 || p.events[0] != "made" {
			t.Errorf("callbacks: %q", p.events)
		}
		tr.Abort()
		check(t, p.untilLost(t, co))
	})
}

func TestEveryFailedStartTLSReportsTheLossOnceAndClosesTheConnection(t *testing.T) {
	for name, test := range map[string]struct {
		peer  func(peer *net.UnixConn) error
		want  func(err error) bool
		other error // what the protocol is told, if not the same
	}{
		"timeout": {
			func(peer *net.UnixConn) error { return nil },
			func(err error) bool { return errors.Is(err, ErrHandshakeTimeout) }, nil,
		},
		"reset": {
			func(peer *net.UnixConn) error { return peer.CloseWrite() },
			func(err error) bool { return errors.Is(err, syscall.ECONNRESET) }, nil,
		},
		"nonsense": {
			func(peer *net.UnixConn) error { _, err := peer.Write([]byte("220 hello\r\n")); return err },
			func(err error) bool { return errors.As(err, new(tls.RecordHeaderError)) }, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inTask(t, func(t *testing.T, co *loop.Coro) {
				ours, raw := blockingPair(t)
				p := &recorder{}
				tr, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours})
				check(t, err)
				opts := &StartTLSOptions{}
				if name == "timeout" {
					opts.HandshakeTimeout = 20 * time.Millisecond
				}
				wait := elsewhere(t, co, func() error { return test.peer(raw) })
				_, err = StartTLS(co, tr, p, trusting(), opts)
				if !test.want(err) {
					t.Errorf("the error is %v", err)
				}
				wait()
				if err := p.untilLost(t, co); !test.want(err) {
					t.Errorf("the protocol was told %v", err)
				}
				elsewhere(t, co, func() error { _, err := io.Copy(io.Discard, raw); return err })()
				turns(t, co)
				p.want(t, "made", "lost")
			})
		})
	}
}

func TestCancellingStartTLSEndsItPromptlyAndReportsTheLossOnce(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		ours, raw := blockingPair(t)
		p := &recorder{}
		tr, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours})
		check(t, err)
		err = loop.Timeout(co, 20*time.Millisecond, func() error {
			_, err := StartTLS(co, tr, p, trusting(), nil)
			return err
		})
		if !errors.Is(err, loop.ErrTimeout) {
			t.Errorf("the error is %v", err)
		}
		check(t, p.untilLost(t, co))
		elsewhere(t, co, func() error { _, err := io.Copy(io.Discard, raw); return err })()
		turns(t, co)
		p.want(t, "made", "lost")
	})
}

func TestCancellingStartTLSSendsWhatWasQueuedBefore(t *testing.T) {
	for _, read := range []bool{true, false} {
		t.Run(fmt.Sprintf("read=%v", read), func(t *testing.T) {
			inTask(t, func(t *testing.T, co *loop.Coro) {
				p := &recorder{}
				tr, peer := joined(t, co, p)
				plain := stuff(t, co, tr)
				task := loop.CreateTask(co.Loop(), func(co *loop.Coro) (Transport, error) {
					return StartTLS(co, tr, p, trusting(), &StartTLSOptions{HandshakeTimeout: time.Hour})
				}, nil)
				turns(t, co)
				task.Cancel("")
				if _, err := task.Await(co); !errors.Is(err, loop.ErrCancelled) {
					t.Errorf("the error is %v", err)
				}
				if read {
					if got := receive(t, co, peer, len(plain)); !bytes.Equal(got, plain) {
						t.Error("the peer has received something else")
					}
				} else {
					tr.(*stream).proto.(*tlsBelow).s.expired() // an hour later
				}
				err := p.untilLost(t, co)
				if read && err != nil || !read && !errors.Is(err, ErrHandshakeTimeout) {
					t.Errorf("the connection was lost with %v", err)
				}
				p.want(t, "made", "pause", "lost")
			})
		})
	}
}

// The time is up in the very turn in which the task learns that it was cancelled,
// as when both have the same limit. Nothing else ends the connection then.
func TestACancelledStartTLSIsOverAlsoIfItsTimeIsUpMeanwhile(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, _ := joined(t, co, p)
		stuff(t, co, tr)
		task := co.Loop().Go(func(co *loop.Coro) error {
			_, err := StartTLS(co, tr, p, trusting(), nil)
			return err
		})
		turns(t, co)
		s := tr.(*stream).proto.(*tlsBelow).s
		task.Cancel("")
		// Behind the task in the queue.
		ok[loop.Handle](t)(co.Loop().CallSoon(func() {
			if s.state != tlsSettled {
				t.Errorf("the state is %d", s.state)
			}
			s.expired()
		}))
		if _, err := task.Await(co); !errors.Is(err, loop.ErrCancelled) {
			t.Errorf("the error is %v", err)
		}
		if err := p.untilLost(t, co); !errors.Is(err, ErrHandshakeTimeout) {
			t.Errorf("the connection was lost with %v", err)
		}
		p.want(t, "made", "pause", "lost")
	})
}

// The handshake fails in the turn of the cancellation, just before it or just behind.
// The task is told that it was cancelled, as by every other wait, or it would go on; the
// protocol learns what was wrong with the connection.
func TestACancellationIsToldAlsoIfTheHandshakeFailsMeanwhile(t *testing.T) {
	for _, first := range []string{"nonsense", "cancellation"} {
		t.Run(first, func(t *testing.T) {
			inTask(t, func(t *testing.T, co *loop.Coro) {
				ours, raw := blockingPair(t)
				p := &recorder{}
				tr, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours})
				check(t, err)
				task := co.Loop().Go(func(co *loop.Coro) error {
					_, err := StartTLS(co, tr, p, trusting(), nil)
					return err
				})
				elsewhere(t, co, func() error { _, err := raw.Read(make([]byte, 5)); return err })()
				s := tr.(*stream).proto.(*tlsBelow).s
				if first == "nonsense" {
					wait := elsewhere(t, co, func() error { _, err := raw.Write([]byte("220 hello\r\n")); return err })
					for limit := time.Now().Add(patience); s.state != tlsSettled; { // for less than a turn
						if time.Now().After(limit) {
							t.Fatal("the handshake is never settled")
						}
						check(t, loop.Sleep(co, 0))
					}
					defer wait()
				}
				task.Cancel("enough")
				if first == "cancellation" {
					s.expired()
				}
				if _, err := task.Await(co); !errors.Is(err, loop.ErrCancelled) {
					t.Errorf("the error is %v", err)
				}
				err = p.untilLost(t, co)
				if first == "nonsense" && !errors.As(err, new(tls.RecordHeaderError)) || first != "nonsense" && !errors.Is(err, ErrHandshakeTimeout) {
					t.Errorf("the protocol was told %v", err)
				}
				p.want(t, "made", "lost")
			})
		})
	}
}

func TestStartTLSRefusesWhatCannotBeUpgraded(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, _ := joined(t, co, p)
		for what, test := range map[string]struct {
			t      Transport
			p      Protocol
			config *tls.Config
			opts   *StartTLSOptions
			want   error
		}{
			"no configuration": {tr, p, nil, nil, loop.ErrInvalidArgument},
			"no protocol":      {tr, nil, trusting(), nil, loop.ErrInvalidArgument},
			"no name":          {tr, p, &tls.Config{}, nil, loop.ErrInvalidArgument},
			"a server's name":  {tr, p, serverTLS(), &StartTLSOptions{ServerSide: true, ServerHostname: "x"}, loop.ErrInvalidArgument},
			"no transport":     {nil, p, trusting(), nil, ErrUnsupported},
		} {
			if _, err := StartTLS(co, test.t, test.p, test.config, test.opts); !errors.Is(err, test.want) {
				t.Errorf("%s: %v", what, err)
			}
		}
		check(t, tr.WriteEOF())
		if _, err := StartTLS(co, tr, p, trusting(), nil); !errors.Is(err, ErrWriteEOF) {
			t.Errorf("after WriteEOF: %v", err)
		}
		tr.Close()
		if _, err := StartTLS(co, tr, p, trusting(), nil); !errors.Is(err, ErrClosing) {
			t.Errorf("closing: %v", err)
		}
		check(t, p.untilLost(t, co))
		p.want(t, "made", "lost")
	})
}

func TestStartTLSAfterTheEndOfTheStreamFailsAtOnce(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		ours, raw := blockingPair(t)
		p := &recorder{keepOpen: true}
		tr, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours})
		check(t, err)
		check(t, raw.CloseWrite())
		until(t, co, "the end is here", func() bool { return !tr.IsReading() })
		if _, err := StartTLS(co, tr, p, trusting(), nil); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the error is %v", err)
		}
		if err := p.untilLost(t, co); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the protocol was told %v", err)
		}
		p.want(t, "made", "eof", "lost")
	})
}

func TestClosingTheConnectionDuringStartTLSFailsIt(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		ours, _ := blockingPair(t)
		p := &recorder{}
		tr, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours})
		check(t, err)
		_, err = co.Loop().CallLater(10*time.Millisecond, tr.Close)
		check(t, err)
		if _, err := StartTLS(co, tr, p, trusting(), nil); !errors.Is(err, ErrClosing) {
			t.Errorf("the error is %v", err)
		}
		if err := p.untilLost(t, co); !errors.Is(err, ErrClosing) {
			t.Errorf("the protocol was told %v", err)
		}
		p.want(t, "made", "lost")
	})
}

func TestTLSInsideTLSWorks(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, closer := range []string{"us", "peer", "outer end"} {
			p := &recorder{}
			outer, peer := secured(t, co, p, serverTLS(), nil)
			innerPeer := tls.Server(peer, serverTLS())
			wait := elsewhere(t, co, innerPeer.Handshake)
			inner, err := StartTLS(co, outer, p, trusting(), nil)
			check(t, err)
			wait()
			exchange(t, co, inner, innerPeer, p.data.String)
			p.data.Reset()
			big := noise(3 << 20)
			wait = elsewhere(t, co, func() error { _, err := innerPeer.Write(big); return err })
			p.untilData(t, co, string(big))
			wait()
			events := []string{"made", "eof", "lost"}
			switch closer {
			case "us":
				inner.Close()
				events = []string{"made", "lost"}
				elsewhere(t, co, innerPeer.Close)()
			case "peer":
				elsewhere(t, co, innerPeer.Close)()
			default:
				elsewhere(t, co, peer.Close)()
			}
			if err := p.untilLost(t, co); err != nil {
				t.Errorf("%s closes: lost with %v", closer, err)
			}
			p.want(t, events...)
		}
	})
}

func TestNoDataIsDeliveredBeforeTheTaskOfStartTLSHasGoneOn(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		ours, raw := blockingPair(t)
		p := &recorder{}
		tr, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours})
		check(t, err)
		var secure Transport
		p.onData = func(data []byte) {
			if secure == nil {
				t.Error("data arrived before the transport was known")
				return
			}
			check(t, secure.Write(data))
		}
		// The client's last flight leaves together with its first data.
		held := &corked{Conn: raw}
		peer := tls.Client(held, trusting())
		answer := make([]byte, 5)
		wait := elsewhere(t, co, func() error {
			if err := peer.Handshake(); err != nil {
				return err
			}
			if _, err := peer.Write([]byte("early")); err != nil {
				return err
			}
			if err := held.uncork(); err != nil {
				return err
			}
			_, err := io.ReadFull(peer, answer)
			return err
		})
		secure, err = StartTLS(co, tr, p, serverTLS(), &StartTLSOptions{ServerSide: true})
		check(t, err)
		if p.data.Len() > 0 {
			t.Error("data arrived before the task went on")
		}
		wait()
		if string(answer) != "early" {
			t.Errorf("the answer is %q", answer)
		}
		secure.Abort()
		check(t, p.untilLost(t, co))
	})
}
