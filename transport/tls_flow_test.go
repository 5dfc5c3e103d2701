package transport

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"
	"weak"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

func TestTheWaterMarksOfTLSAreThoseOfAsyncioAndActAtOnce(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := secured(t, co, p, serverTLS(), nil)
		if low, high := tr.WriteBufferLimits(); low != 128<<10 || high != 512<<10 {
			t.Errorf("write marks %d and %d", low, high)
		}
		if low, high := tr.ReadBufferLimits(); low != 64<<10 || high != 256<<10 {
			t.Errorf("read marks %d and %d", low, high)
		}
		for _, set := range []func(high, low int) error{tr.SetWriteBufferLimits, tr.SetReadBufferLimits} {
			if err := set(1, 2); !errors.Is(err, loop.ErrInvalidArgument) {
				t.Errorf("set 1 and 2: %v", err)
			}
			check(t, set(4000, Default))
		}
		if low, high := tr.WriteBufferLimits(); low != 1000 || high != 4000 {
			t.Errorf("write marks %d and %d", low, high)
		}
		if low, high := tr.ReadBufferLimits(); low != 1000 || high != 4000 {
			t.Errorf("read marks %d and %d", low, high)
		}
		check(t, tr.SetWriteBufferLimits(Default, Default))
		all := noise(4 << 20)
		check(t, tr.Write(all))
		n := tr.WriteBufferSize()
		check(t, tr.SetWriteBufferLimits(n, n)) // as much as there is: resumes
		check(t, tr.SetWriteBufferLimits(n-1, 0))
		p.want(t, "made", "pause", "resume", "pause")
		var got []byte
		wait := elsewhere(t, co, func() (err error) {
			got = make([]byte, len(all))
			_, err = io.ReadFull(peer, got)
			return err
		})
		wait()
		until(t, co, "the buffer is empty", func() bool { return tr.WriteBufferSize() == 0 })
		p.want(t, "made", "pause", "resume", "pause", "resume")
		if !bytes.Equal(got, all) {
			t.Error("something else arrived")
		}
		tr.Abort()
		check(t, p.untilLost(t, co))
	})
}

func TestWhatPauseWritingWritesComesBehindTheWriteThatCausedIt(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := secured(t, co, p, serverTLS(), nil)
		p.onPause = func() { check(t, tr.Write([]byte("behind"))) }
		all := noise(4 << 20)
		check(t, tr.Write(all))
		got := make([]byte, len(all)+6)
		elsewhere(t, co, func() error {
			_, err := io.ReadFull(peer, got)
			return err
		})()
		if !bytes.Equal(got, append(all, "behind"...)) {
			t.Error("the order is wrong")
		}
		tr.Abort()
		check(t, p.untilLost(t, co))
	})
}

func TestASlowReaderOverTLSMakesThePeerWait(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		server := &recorder{}
		p := &recorder{}
		tr, srv := tlsPeers(t, co, p, server, serverTLS())
		check(t, tr.PauseReading())
		var sent []byte
		for round := 0; server.t.WriteBufferSize() <= tlsWriteHigh; round++ {
			block := noise(100_000 + round)
			check(t, server.t.Write(block))
			sent = append(sent, block...)
			turns(t, co)
		}
		raw := tr.(*tlsStream)
		until(t, co, "the raw transport is paused", func() bool { return raw.rawPaused })
		if n := tr.ReadBufferSize(); n <= tlsReadHigh || n > tlsReadHigh+(1<<20) {
			t.Errorf("%d bytes are held", n)
		}
		if p.data.Len() > 0 || tr.IsReading() {
			t.Error("delivered while paused")
		}
		// Read a little at a time.
		p.onData = func([]byte) { check(t, tr.PauseReading()) }
		for p.data.Len() < len(sent) {
			check(t, tr.ResumeReading())
			turns(t, co)
		}
		if !bytes.Equal(p.data.Bytes(), sent) {
			t.Error("something else arrived")
		}
		if raw.rawPaused {
			t.Error("the raw transport is still paused")
		}
		// Once at least: the kernel may take in one go, and late, what had piled up
		// before the reader was paused.
		pauses := max(1, len(server.events)/2)
		server.want(t, append([]string{"made"}, slices.Repeat([]string{"pause", "resume"}, pauses)...)...)
		check(t, tr.ResumeReading())
		over(t, co, srv)
		check(t, p.untilLost(t, co))
	})
}

func TestRecordsMayBeSplitAnywhere(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for seed := range uint64(4) {
			r := rand.New(rand.NewPCG(seed, 1))
			ours, raw := blockingPair(t)
			config := serverTLS()
			if seed%2 == 1 {
				config.MaxVersion = tls.VersionTLS12
			}
			peer := tls.Server(&splitting{raw, r}, config)
			text := noise(100_000)
			wait := elsewhere(t, co, func() error {
				for rest := text; len(rest) > 0; {
					n := min(len(rest), 1+r.IntN(20_000))
					if _, err := peer.Write(rest[:n]); err != nil {
						return err
					}
					rest = rest[n:]
				}
				return peer.Close()
			})
			p := &recorder{}
			tr, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours, TLS: trusting()})
			check(t, err)
			resume := func() { check(t, tr.ResumeReading()) }
			pauses := rand.New(rand.NewPCG(seed, 2))
			p.onData = func([]byte) {
				if pauses.IntN(4) == 0 {
					check(t, tr.PauseReading())
					_, err := co.Loop().CallSoon(resume)
					check(t, err)
				}
			}
			check(t, p.untilLost(t, co))
			wait()
			p.want(t, "made", "eof", "lost")
			if !bytes.Equal(p.data.Bytes(), text) {
				t.Errorf("seed %d: something else arrived", seed)
			}
		}
	})
}

// splitting sends everything in small random pieces.
type splitting struct {
	*net.UnixConn
	r *rand.Rand
}

func (s *splitting) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), 1+s.r.IntN(1500))
		if s.r.IntN(3) == 0 {
			n = 1
		}
		if _, err := s.UnixConn.Write(rest[:n]); err != nil {
			return 0, err
		}
		rest = rest[n:]
		if s.r.IntN(8) == 0 {
			runtime.Gosched()
		}
	}
	return len(p), nil
}

func TestABufferedProtocolReceivesOverTLSIntoItsOwnMemory(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, size := range []int{1, 100, 100_000} {
			p := &bufferRecorder{buf: make([]byte, size)}
			_, peer := secured(t, co, p, serverTLS(), nil)
			text := string(noise(50_000))
			elsewhere(t, co, func() error {
				if _, err := peer.Write([]byte(text)); err != nil {
					return err
				}
				return peer.Close()
			})()
			check(t, p.untilLost(t, co))
			p.untilData(t, co, text)
			p.want(t, "made", "eof", "lost")
		}
	})
}

func TestAnEmptyGetBufferOverTLSIsFatal(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := reports(co)
		p := &bufferRecorder{}
		_, peer := secured(t, co, p, serverTLS(), nil)
		elsewhere(t, co, func() error { _, _ = peer.Write([]byte("x")); return nil })()
		if err := p.untilLost(t, co); !errors.Is(err, loop.ErrInvalidState) {
			t.Errorf("lost with %v", err)
		}
		if len(*all) != 1 {
			t.Errorf("%d reports", len(*all))
		}
	})
}

func TestSendfileOverTLSFallsBackAndKeepsTheOrder(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := secured(t, co, p, serverTLS(), nil)
		text := noise(2 << 20)
		path := filepath.Join(t.TempDir(), "file")
		check(t, os.WriteFile(path, text, 0o600))
		f, err := os.Open(path)
		check(t, err)
		defer func() { check(t, f.Close()) }()
		if _, err := Sendfile(co, tr, f, 0, ToEnd, &SendfileOptions{NoFallback: true}); !errors.Is(err, ErrUnsupported) {
			t.Errorf("without the fallback: %v", err)
		}
		check(t, tr.Write([]byte("before ")))
		q := &recorder{}
		task := co.Loop().Go(func(co *loop.Coro) error {
			n, err := Sendfile(co, tr, f, 100, ToEnd, nil)
			if p.data.Len()+q.data.Len() > 0 {
				t.Error("data was delivered during Sendfile")
			}
			if err == nil && n != int64(len(text))-100 {
				err = fmt.Errorf("%d bytes were sent", n)
			}
			return err
		})
		check(t, loop.Sleep(co, 0)) // it has begun, and reads nothing from now on
		var got []byte
		wait := elsewhere(t, co, func() (err error) {
			if _, err = peer.Write([]byte("meanwhile")); err == nil {
				got, err = io.ReadAll(peer)
			}
			return err
		})
		if err := tr.Write([]byte("x")); !errors.Is(err, ErrSendfile) {
			t.Errorf("a write during Sendfile: %v", err)
		}
		if _, err := Sendfile(co, tr, f, 0, ToEnd, nil); !errors.Is(err, ErrSendfile) {
			t.Errorf("a second Sendfile: %v", err)
		}
		tr.SetProtocol(q)
		_ = must2(task.Await(co))(t)
		check(t, tr.Write([]byte(" after")))
		q.untilData(t, co, "meanwhile")
		tr.Close()
		wait()
		elsewhere(t, co, peer.Close)()
		check(t, q.untilLost(t, co))
		want := append(append([]byte("before "), text[100:]...), " after"...)
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes arrived, not the %d that were sent", len(got), len(want))
		}
		if at, err := f.Seek(0, io.SeekCurrent); err != nil || at != int64(len(text)) {
			t.Errorf("the file is at %d, %v", at, err)
		}
	})
}

func TestNothingRefersToATLSConnectionThatIsOver(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		gone := map[string]weak.Pointer[tls.Config]{}
		for name, open := range map[string]func(config *tls.Config){
			"closed": func(config *tls.Config) {
				p := &recorder{}
				tr, peer := secured(t, co, p, serverTLS(), &ConnectOptions{TLS: config})
				tr.Close()
				elsewhere(t, co, peer.Close)()
				check(t, p.untilLost(t, co))
			},
			"aborted": func(config *tls.Config) {
				p := &recorder{}
				tr, _ := secured(t, co, p, serverTLS(), &ConnectOptions{TLS: config})
				tr.Close()
				tr.Abort()
				check(t, p.untilLost(t, co))
			},
			"closed when it was lost": func(config *tls.Config) {
				p := &recorder{}
				p.onLost = func() { p.t.Close() }
				tr, peer := secured(t, co, p, serverTLS(), &ConnectOptions{TLS: config, ShutdownTimeout: never})
				check(t, tr.Write([]byte("unread")))
				turns(t, co)
				check(t, peer.NetConn().Close())
				if err := p.untilLost(t, co); !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("lost with %v", err)
				}
			},
			"cancelled": func(config *tls.Config) {
				ours, _ := blockingPair(t)
				err := loop.Timeout(co, time.Millisecond, func() error {
					_, _, err := CreateConnection(co, newEcho, "", "", &ConnectOptions{Sock: ours, TLS: config})
					return err
				})
				if !errors.Is(err, loop.ErrTimeout) {
					t.Errorf("cancelled: %v", err)
				}
			},
			"failed": func(config *tls.Config) {
				ours, peer := blockingPair(t)
				check(t, peer.CloseWrite())
				_, _, err := CreateConnection(co, newEcho, "", "", &ConnectOptions{Sock: ours, TLS: config})
				if !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("failed: %v", err)
				}
			},
		} {
			config := trusting()
			gone[name] = weak.Make(config)
			open(config)
		}
		turns(t, co)
		// What the stack and the recycled callbacks still hold goes with time.
		until(t, co, "everything is collected", func() bool {
			collect()
			for _, w := range gone {
				if w.Value() != nil {
					return false
				}
			}
			return true
		})
	})
}

func TestTLSWorksOverUnixServers(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		path := filepath.Join(t.TempDir(), "s")
		srv, err := CreateUnixServer(co, newEcho, path, &UnixServerOptions{TLS: serverTLS()})
		check(t, err)
		p := &recorder{}
		tr, _, err := CreateUnixConnection(co, protocolOf(p), path, &UnixConnectOptions{TLS: trusting(), ServerHostname: "localhost"})
		check(t, err)
		check(t, tr.Write([]byte("over a file")))
		p.untilData(t, co, "over a file")
		_, _, err = CreateUnixConnection(co, newEcho, path, &UnixConnectOptions{TLS: &tls.Config{}})
		if !errors.Is(err, loop.ErrInvalidArgument) {
			t.Errorf("without a name: %v", err)
		}
		tr.Close()
		check(t, p.untilLost(t, co))
		srv.Close()
		check(t, srv.WaitClosed(co))
	})
}

func TestOptionsOfTLSWithoutTLSAreRefused(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for what, opts := range map[string]*ConnectOptions{
			"ServerHostname":   {ServerHostname: "x"},
			"AnyHostname":      {AnyHostname: true},
			"HandshakeTimeout": {HandshakeTimeout: time.Second},
			"ShutdownTimeout":  {ShutdownTimeout: time.Second},
		} {
			if _, _, err := CreateConnection(co, newEcho, "127.0.0.1", "1", opts); !errors.Is(err, loop.ErrInvalidArgument) {
				t.Errorf("%s: %v", what, err)
			}
		}
		ours, _ := blockingPair(t)
		defer func() { check(t, ours.Close()) }()
		if _, _, err := ConnectAcceptedSocket(co, newEcho, ours, &AcceptedOptions{HandshakeTimeout: 1}); !errors.Is(err, loop.ErrInvalidArgument) {
			t.Errorf("ConnectAcceptedSocket: %v", err)
		}
	})
}
