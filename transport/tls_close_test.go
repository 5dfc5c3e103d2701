package transport

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
)

func TestThePeersCloseNotifyIsTheEndForManyClientsAtOnce(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		// The server says goodbye and closes.
		srv, port := localServer(t, co, func() Protocol {
			p := &recorder{}
			p.onData = func([]byte) {
				_ = p.t.Write([]byte("goodbye"))
				p.t.Close()
			}
			return p
		}, &ServerOptions{TLS: serverTLS()})
		var tasks []*loop.Task[struct{}]
		for range 25 {
			tasks = append(tasks, co.Loop().Go(func(co *loop.Coro) error {
				p := &recorder{}
				tr, _, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, &ConnectOptions{TLS: trusting()})
				if err != nil {
					return err
				}
				check(t, tr.Write([]byte("hello")))
				check(t, p.untilLost(t, co))
				p.untilData(t, co, "goodbye")
				p.want(t, "made", "eof", "lost")
				return nil
			}))
		}
		for _, task := range tasks {
			_ = must2(task.Await(co))(t)
		}
		srv.Close()
		check(t, srv.WaitClosed(co))
	})
}

func TestOurBacklogIsDeliveredAfterThePeersCloseNotifyOrTheRawEnd(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, raw := range []bool{false, true} {
			p := &recorder{}
			tr, peer := secured(t, co, p, serverTLS(), nil)
			big := noise(4 << 20)
			check(t, tr.Write(big))
			if tr.WriteBufferSize() == 0 {
				t.Error("nothing is buffered")
			}
			elsewhere(t, co, func() error {
				if !raw {
					return peer.CloseWrite()
				}
				return peer.NetConn().(interface{ CloseWrite() error }).CloseWrite()
			})()
			until(t, co, "the end is here", func() bool { return len(p.events) > 2 })
			var got []byte
			elsewhere(t, co, func() (err error) {
				got, err = io.ReadAll(peer)
				return err
			})()
			if !bytes.Equal(got, big) {
				t.Errorf("raw end %v: the peer has %d bytes of %d", raw, len(got), len(big))
			}
			check(t, p.untilLost(t, co))
			p.want(t, "made", "pause", "eof", "resume", "lost")
		}
	})
}

func TestTheSideThatClosesTLSIsNotToldOfThePeersEnd(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p, peer := &recorder{}, &recorder{}
		tr, srv := tlsPeers(t, co, p, peer, serverTLS())
		tr.Close()
		check(t, p.untilLost(t, co))
		check(t, peer.untilLost(t, co))
		p.want(t, "made", "lost")
		peer.want(t, "made", "eof", "lost")
		srv.Close()
	})
}

func TestAPeerThatIgnoresOurCloseNotifyIsATimeout(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, _ := secured(t, co, p, serverTLS(), &ConnectOptions{ShutdownTimeout: 20 * time.Millisecond})
		tr.Close()
		tr.Close()
		if !tr.IsClosing() || tr.IsReading() {
			t.Error("it is not closing")
		}
		err := p.untilLost(t, co)
		if !errors.Is(err, ErrShutdownTimeout) || !errors.Is(err, loop.ErrTimeout) || err.Error() != "SSL shutdown timed out" {
			t.Errorf("lost with %v", err)
		}
		p.want(t, "made", "lost")
	})
}

func TestAPeerThatDoesNotReadOurBacklogIsATimeout(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, _ := secured(t, co, p, serverTLS(), &ConnectOptions{ShutdownTimeout: 20 * time.Millisecond})
		check(t, tr.Write(noise(4<<20)))
		tr.Close()
		if err := p.untilLost(t, co); !errors.Is(err, ErrShutdownTimeout) {
			t.Errorf("lost with %v", err)
		}
		p.want(t, "made", "pause", "lost")
	})
}

func TestDataAfterOurCloseNotifyIsDiscarded(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := secured(t, co, p, serverTLS(), nil)
		tr.Close()
		elsewhere(t, co, func() error {
			if _, err := io.Copy(io.Discard, peer); err != nil { // up to our close_notify
				return err
			}
			if _, err := peer.Write(noise(500_000)); err != nil {
				return err
			}
			return peer.Close()
		})()
		check(t, p.untilLost(t, co))
		p.want(t, "made", "lost")
		if p.data.Len() > 0 {
			t.Errorf("%d bytes were delivered", p.data.Len())
		}
	})
}

func TestClosingInDataReceivedDeliversNothingMore(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := secured(t, co, p, serverTLS(), nil)
		at := 0
		p.onData = func([]byte) {
			at = p.data.Len()
			tr.Close()
		}
		elsewhere(t, co, func() error {
			if _, err := peer.Write(noise(150_000)); err != nil {
				return err
			}
			return peer.Close()
		})()
		check(t, p.untilLost(t, co))
		if p.data.Len() != at {
			t.Errorf("%d bytes came after Close", p.data.Len()-at)
		}
		p.want(t, "made", "lost")
	})
}

func TestTrailingDataAndTheRawEndAreHeldWhilePaused(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, notify := range []bool{false, true} {
			p := &recorder{}
			tr, peer := secured(t, co, p, serverTLS(), nil)
			check(t, tr.PauseReading())
			elsewhere(t, co, func() error {
				if _, err := peer.Write([]byte("the last words")); err != nil {
					return err
				}
				if notify {
					return peer.Close()
				}
				return peer.NetConn().Close()
			})()
			until(t, co, "the end has arrived", func() bool { return tr.(*tlsStream).rawEOF })
			turns(t, co)
			p.want(t, "made")
			if p.data.Len() > 0 || tr.IsReading() || tr.ReadBufferSize() == 0 {
				t.Error("delivered while paused")
			}
			check(t, tr.ResumeReading())
			if p.data.Len() > 0 {
				t.Error("delivered inside ResumeReading")
			}
			check(t, p.untilLost(t, co))
			p.untilData(t, co, "the last words")
			p.want(t, "made", "eof", "lost")
		}
	})
}

func TestClosingWhilePausedDropsWhatIsHeldAndStillFindsTheEnd(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := secured(t, co, p, serverTLS(), nil)
		check(t, tr.PauseReading())
		wait := elsewhere(t, co, func() error {
			if _, err := peer.Write(noise(1 << 20)); err != nil {
				return err
			}
			return peer.Close()
		})
		until(t, co, "much is held", func() bool { return tr.(*tlsStream).rawPaused })
		tr.Close()
		check(t, p.untilLost(t, co))
		wait()
		p.want(t, "made", "lost")
		if p.data.Len() > 0 {
			t.Error("delivered after Close")
		}
	})
}

func TestClosingInConnectionMadeAndDuringTheHandshakeRaiseNothing(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		made := &recorder{}
		made.onMade = func() { made.t.Close() }
		tr, peer := secured(t, co, made, serverTLS(), nil)
		elsewhere(t, co, peer.Close)()
		check(t, made.untilLost(t, co))
		made.want(t, "made", "lost")
		if !tr.IsClosing() {
			t.Error("it is not closing")
		}

		p := &recorder{}
		srv, port := localServer(t, co, protocolOf(p), &ServerOptions{TLS: serverTLS()})
		client := dialLocal(t, co, port)
		until(t, co, "the connection is accepted", func() bool { return len(srv.clients()) == 1 })
		early := srv.clients()[0]
		if _, ok := early.ExtraInfo(ExtraCipher); ok || early.IsClosing() {
			t.Error("a getter is wrong during the handshake")
		}
		check(t, early.Write([]byte("too early")))
		srv.Close()
		srv.CloseClients()
		receiveEOF(t, co, client)
		check(t, srv.WaitClosed(co))
		turns(t, co)
		p.want(t)
	})
}

func TestWritesAfterTheEndOfTLSAreSwallowedAndWarnedAboutFromTheFifth(t *testing.T) {
	inLoggedTask(t, func(t *testing.T, co *loop.Coro, log *logBuffer) {
		p := &recorder{}
		tr, peer := secured(t, co, p, serverTLS(), nil)
		tr.Close()
		for range 7 {
			check(t, tr.Write([]byte("x")))
			check(t, tr.Write(nil))
		}
		if n := log.count("SSL connection is closed"); n != 3 {
			t.Errorf("%d warnings", n)
		}
		var got []byte
		elsewhere(t, co, func() (err error) {
			if got, err = io.ReadAll(peer); err == nil {
				err = peer.Close()
			}
			return err
		})()
		check(t, p.untilLost(t, co))
		if len(got) > 0 {
			t.Errorf("the peer has got %q", got)
		}
	})
}

func TestATrueAnswerOfEOFReceivedIsWarnedAboutAndIgnored(t *testing.T) {
	inLoggedTask(t, func(t *testing.T, co *loop.Coro, log *logBuffer) {
		p := &recorder{keepOpen: true}
		_, peer := secured(t, co, p, serverTLS(), nil)
		elsewhere(t, co, peer.Close)()
		check(t, p.untilLost(t, co))
		p.want(t, "made", "eof", "lost")
		if n := log.count("no effect when using TLS"); n != 1 {
			t.Errorf("%d warnings", n)
		}
	})
}

func TestAbortLosesTheConnectionWithoutAnError(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, closed := range []bool{false, true} {
			p := &recorder{}
			tr, _ := secured(t, co, p, serverTLS(), nil)
			check(t, tr.Write(noise(4<<20)))
			if closed {
				tr.Close()
			}
			tr.Abort()
			tr.Abort()
			if tr.WriteBufferSize() != 0 {
				t.Error("something is still buffered")
			}
			p.want(t, "made", "pause")
			check(t, p.untilLost(t, co))
			p.want(t, "made", "pause", "lost")
		}
	})
}

func TestARecordThatWasTamperedWithBreaksTheConnection(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		_, peer := secured(t, co, p, serverTLS(), nil)
		elsewhere(t, co, func() error {
			if _, err := peer.Write([]byte("good")); err != nil {
				return err
			}
			if _, err := peer.NetConn().Write(append([]byte{23, 3, 3, 0, 32}, make([]byte, 32)...)); err != nil {
				return err
			}
			_, err := peer.Read(make([]byte, 1))
			if err == nil || err.Error() != "remote error: tls: bad record MAC" {
				return errors.New("the peer has got " + errText(err))
			}
			return nil
		})()
		if err := p.untilLost(t, co); errText(err) == "no error" {
			t.Error("lost without an error")
		}
		p.untilData(t, co, "good")
		p.want(t, "made", "lost")
	})
}

func TestPanicsOfCallbacksOverTLSAreReportedAndFatalOnlyInDataReceived(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := reports(co)
		p := &recorder{}
		p.onMade = func() { panic("made") }
		p.onData = func([]byte) { panic("data") }
		p.onLost = func() { panic("lost") }
		_, peer := secured(t, co, p, serverTLS(), nil)
		wait := elsewhere(t, co, func() error {
			if _, err := peer.Write([]byte("x")); err != nil {
				return err
			}
			_, _ = io.Copy(io.Discard, peer)
			return nil
		})
		err := p.untilLost(t, co)
		wait()
		if pe := new(loop.PanicError); !errors.As(err, &pe) || pe.Value != "data" {
			t.Errorf("lost with %v", err)
		}
		if len(*all) != 3 {
			t.Errorf("%d reports", len(*all))
		}
		p.want(t, "made", "lost")
	})
}

func TestTheRawEndWithoutCloseNotifyIsTheEnd(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			p := &recorder{}
			config := serverTLS()
			config.MaxVersion = version
			_, peer := secured(t, co, p, config, nil)
			elsewhere(t, co, func() error {
				if _, err := peer.Write([]byte("bye")); err != nil {
					return err
				}
				return peer.NetConn().Close()
			})()
			check(t, p.untilLost(t, co))
			p.untilData(t, co, "bye")
			p.want(t, "made", "eof", "lost")
		}
	})
}
