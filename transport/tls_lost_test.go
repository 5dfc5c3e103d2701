package transport

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
)

// flight tells when the first bytes of the peer have arrived.
type flight struct {
	net.Conn
	arrived chan struct{}
}

func (f *flight) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	select {
	case f.arrived <- struct{}{}:
	default:
	}
	return n, err
}

// lastWords is a client that sends the end of its handshake, data and then a reset
// as soon as it has the server's answer. It is over when gone is closed.
func lastWords(t *testing.T, port string) (answered, gone chan struct{}) {
	answered, gone = make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(gone)
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Error(err)
			return
		}
		held := &corked{Conn: c}
		client := tls.Client(&flight{held, answered}, trusting())
		if err := client.Handshake(); err != nil {
			t.Error(err)
		}
		if _, err := client.Write([]byte("hello")); err != nil {
			t.Error(err)
		}
		if err := held.uncork(); err != nil {
			t.Error(err)
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}()
	return answered, gone
}

func TestDataThatCameWithTheHandshakeIsDeliveredBeforeAReset(t *testing.T) {
	for _, startTLS := range []bool{false, true} {
		inTask(t, func(t *testing.T, co *loop.Coro) {
			p := &recorder{}
			o := &ServerOptions{TLS: serverTLS()}
			if startTLS {
				o.TLS = nil
				p.onMade = func() { check(t, p.t.PauseReading()) }
			}
			srv, port := localServer(t, co, protocolOf(p), o)
			answered, gone := lastWords(t, port)
			var task *loop.Task[struct{}]
			if startTLS {
				until(t, co, "there is a connection", func() bool { return p.t != nil })
				task = co.Loop().Go(func(co *loop.Coro) error {
					_, err := StartTLS(co, p.t, p, serverTLS(), &StartTLSOptions{ServerSide: true})
					return err
				})
			}
			until(t, co, "the server has answered", func() bool { return len(answered) > 0 })
			<-gone // while the loop does nothing
			if err := p.untilLost(t, co); err == nil || p.data.String() != "hello" {
				t.Errorf("StartTLS %v: %q, and lost with %v", startTLS, p.data.String(), err)
			}
			if task != nil {
				_, err := task.Await(co)
				check(t, err)
			}
			over(t, co, srv)
		})
	}
}

func TestTLSGoesOnAfterACallbackThatEndsItsGoroutine(t *testing.T) {
	for _, in := range []string{"made", "data", "eof", "lost"} {
		for _, kind := range []string{"data", "buffer", "held"} {
			t.Run(in+" "+kind, func(t *testing.T) {
				inTaskWithExits(t, func(t *testing.T, co *loop.Coro) {
					var p Protocol
					var e *exiting
					if kind == "buffer" { // of 4 bytes
						b := &exitingBuffer{exiting{in: in}}
						p, e = b, &b.exiting
					} else {
						d := &exitingData{exiting{in: in}}
						p, e = d, &d.exiting
					}
					srv, port := localServer(t, co, protocolOf(p), &ServerOptions{TLS: serverTLS()})
					var c *tls.Conn
					elsewhere(t, co, func() (err error) {
						c, err = tls.Dial("tcp", "127.0.0.1:"+port, trusting())
						return err
					})()
					defer c.Close()
					until(t, co, "there is a connection", func() bool { return e.t != nil })
					if kind == "held" {
						check(t, e.t.PauseReading())
					}
					const total = 3 * 100_000
					wait := elsewhere(t, co, func() error {
						for range 3 {
							if _, err := c.Write(noise(total / 3)); err != nil {
								return err
							}
						}
						return c.CloseWrite()
					})
					if kind == "held" {
						until(t, co, "much has arrived", func() bool { return e.t.(TLSTransport).ReadBufferSize() > 2*tlsBlock })
						check(t, e.t.ResumeReading())
					}
					until(t, co, "everything is received or the connection lost", func() bool { return e.got == total || e.lost })
					wait()
					until(t, co, "the connection is lost", func() bool { return e.lost })
					if e.got != total || !e.eof || !e.done {
						t.Errorf("%d bytes, EOFReceived was called: %v, the goroutine ended: %v", e.got, e.eof, e.done)
					}
					over(t, co, srv)
				})
			})
		}
	}
}

func TestATLSTransportTakesAProtocolThatCannotBeCompared(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		got := 0
		ours, raw := blockingPair(t)
		peer := tls.Server(raw, serverTLS())
		wait := elsewhere(t, co, func() error { _, err := peer.Write([]byte("abc")); return err })
		tr, _, err := CreateConnection(co, protocolOf(values{buf: make([]byte, 2), got: &got}), "", "", &ConnectOptions{Sock: ours, TLS: trusting()})
		check(t, err)
		wait()
		until(t, co, "everything is received", func() bool { return got == 3 })
		tr.Abort()
		turns(t, co)
	})
}

func TestAWriteAfterALossDuringSendfileIsDropped(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, _ := secured(t, co, p, serverTLS(), nil) // and the peer does not read
		sending := co.Loop().Go(func(co *loop.Coro) error {
			_, err := Sendfile(co, tr, bytes.NewReader(make([]byte, 64<<20)), 0, ToEnd, nil)
			return err
		})
		until(t, co, "it is sending", func() bool { return tr.WriteBufferSize() > 0 })
		tr.Abort()
		if _, err := sending.Await(co); err == nil {
			t.Error("Sendfile ended without an error")
		}
		check(t, p.untilLost(t, co))
		check(t, tr.Write([]byte("x")))
	})
}

func TestOneWriteToALostPeerIsNotWarnedAbout(t *testing.T) {
	inLoggedTask(t, func(t *testing.T, co *loop.Coro, log *logBuffer) {
		p := &recorder{}
		tr, peer := secured(t, co, p, serverTLS(), nil)
		check(t, peer.NetConn().Close())
		check(t, tr.Write(noise(2<<20)))
		_ = p.untilLost(t, co)
		if n := log.count("dropped"); n != 0 {
			t.Errorf("%d warnings", n)
		}
	})
}

func TestTheCallbacksOfAConfigurationSeeTheVerifiedChains(t *testing.T) {
	for _, o := range []ConnectOptions{{AnyHostname: true}, {ServerHostname: "localhost"}} {
		inTask(t, func(t *testing.T, co *loop.Coro) {
			certs, verified, connection := 0, 0, 0
			o.TLS = &tls.Config{
				RootCAs: testIDs().pool,
				VerifyPeerCertificate: func(raw [][]byte, chains [][]*x509.Certificate) error {
					certs, verified = len(raw), len(chains)
					return nil
				},
				VerifyConnection: func(state tls.ConnectionState) error {
					connection = len(state.VerifiedChains)
					return nil
				},
			}
			p := &recorder{}
			tr, _ := secured(t, co, p, serverTLS(), &o)
			if certs != 1 || verified != 1 || connection != 1 {
				t.Errorf("AnyHostname %v: %d certificates, %d chains, %d of the connection", o.AnyHostname, certs, verified, connection)
			}
			tr.Abort()
			check(t, p.untilLost(t, co))
		})
	}
}

func TestAnAbortIsNoErrorWhateverTheProtocolDoesNext(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		reports(co)
		p := &recorder{}
		p.onData = func([]byte) { p.t.Abort(); panic("too late") }
		_, peer := secured(t, co, p, serverTLS(), nil)
		elsewhere(t, co, func() error { _, err := peer.Write([]byte("x")); return err })()
		check(t, p.untilLost(t, co))
	})
}

// It has not been told that writing is paused.
func TestTheProtocolOfStartTLSIsToldToResumeOnlyWhatItWasToldToPause(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		ours, raw := blockingPair(t)
		old, p := &recorder{}, &recorder{}
		tr, _, err := CreateConnection(co, protocolOf(old), "", "", &ConnectOptions{Sock: ours})
		check(t, err)
		sent := len(stuff(t, co, tr))
		wait := elsewhere(t, co, func() error {
			for left := sent; left > 0; {
				n, err := raw.Read(make([]byte, left))
				if err != nil {
					return err
				}
				left -= n
			}
			return tls.Server(raw, serverTLS()).Handshake()
		})
		s, err := StartTLS(co, tr, p, trusting(), nil)
		check(t, err)
		wait()
		turns(t, co)
		p.want(t)
		s.Abort()
		check(t, p.untilLost(t, co))
	})
}

func TestAConnectionAbortedBetweenItsHandshakeAndItsBeginningIsNotMade(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		srv, port := localServer(t, co, protocolOf(p), &ServerOptions{TLS: serverTLS()})
		peer := make(chan error, 1)
		go func() {
			c, err := tls.Dial("tcp", "127.0.0.1:"+port, trusting())
			if err == nil {
				_, err = c.Read(make([]byte, 1))
				_ = c.Close()
			}
			peer <- err
		}()
		settled := func() bool {
			clients := srv.clients()
			return len(clients) == 1 && clients[0].(*tlsStream).state == tlsSettled
		}
		for limit := time.Now().Add(patience); !settled(); { // for less than a turn
			if time.Now().After(limit) {
				t.Fatal("the handshake is never settled")
			}
			check(t, loop.Sleep(co, 0))
		}
		srv.AbortClients()
		until(t, co, "the client is refused", func() bool { return len(peer) > 0 })
		if err := <-peer; err == nil {
			t.Error("the client was not refused")
		}
		turns(t, co)
		p.want(t)
		over(t, co, srv)
	})
}

// answering answers in its own memory, and closes when it has answered.
type answering struct {
	BaseProtocol
	t    Transport
	buf  [4]byte
	got  int
	err  error
	lost bool
}

func (p *answering) ConnectionMade(t Transport) { p.t = t }
func (p *answering) GetBuffer(int) []byte       { return p.buf[:] }
func (p *answering) ConnectionLost(err error)   { p.lost, p.err = true, err }
func (p *answering) BufferUpdated(n int) {
	_ = p.t.Write(make([]byte, 1<<20))
	if p.got += n; p.got == 8 {
		p.t.Close()
	}
}

func TestAResetIsToldAlsoToAProtocolThatClosesThen(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &answering{}
		_, peer := secured(t, co, p, serverTLS(), nil)
		gone := make(chan error, 1)
		go func() {
			_, err := peer.Write([]byte("12345678"))
			_ = peer.NetConn().Close() // with something unread, or soon
			gone <- err
		}()
		check(t, <-gone) // while the loop does nothing
		until(t, co, "the connection is lost", func() bool { return p.lost })
		if p.err == nil {
			t.Error("two answers of 1 MiB were lost, and no error told")
		}
	})
}
