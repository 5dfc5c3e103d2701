package sockapi

import (
	"io"
	"net/netip"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// echoTask sends back what comes until the peer closes.
func echoTask(co *loop.Coro, s *Socket, size int) *loop.Task[struct{}] {
	return spawn(co, func(co *loop.Coro) (struct{}, error) {
		buf := make([]byte, size)
		for {
			n, err := RecvInto(co, s, buf)
			if err == io.EOF {
				return struct{}{}, nil
			}
			if err != nil {
				return struct{}{}, err
			}
			if err := SendAll(co, s, buf[:n]); err != nil {
				return struct{}{}, err
			}
		}
	})
}

// roundTrip sends p and receives as much.
func roundTrip(co *loop.Coro, s *Socket, p []byte) error {
	if err := SendAll(co, s, p); err != nil {
		return err
	}
	for n := 0; n < len(p); {
		m, err := RecvInto(co, s, p[n:])
		if err != nil {
			return err
		}
		n += m
	}
	return nil
}

func TestOperationsAllocateNothing(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			stream, peer := tcpPair(t, co)
			echoes := []*loop.Task[struct{}]{echoTask(co, peer, 4096)}
			udp, udpAddr := packet(t, "udp", "127.0.0.1:0")
			conn, from := pair(t, unix.SOCK_STREAM)
			echoes = append(echoes, echoTask(co, from, 4096))
			c := NewConn(co, conn)
			p := make([]byte, 512)
			bufs := [][]byte{p[:100], p[100:]}
			operations := map[string]func() error{
				"SendAll and RecvInto": func() error { return roundTrip(co, stream, p) },
				"SendAllV": func() error {
					if err := SendAllV(co, stream, bufs); err != nil {
						return err
					}
					for n := 0; n < len(p); {
						m, err := RecvInto(co, stream, p[n:])
						if err != nil {
							return err
						}
						n += m
					}
					return nil
				},
				"SendTo and RecvFromInto": func() error {
					if _, err := SendTo(co, udp, p, udpAddr); err != nil {
						return err
					}
					_, _, err := RecvFromInto(co, udp, p)
					return err
				},
				"Conn with a deadline": func() error {
					if err := c.SetDeadline(time.Now().Add(time.Hour)); err != nil {
						return err
					}
					if _, err := c.Write(p); err != nil {
						return err
					}
					_, err := c.Read(p)
					return err
				},
			}
			for name, op := range operations {
				var failed error
				measured := func() {
					if err := op(); err != nil {
						failed = err
					}
				}
				for range 100 {
					measured()
				}
				if n := testing.AllocsPerRun(500, measured); n != 0 || failed != nil {
					t.Errorf("%s: %v allocations per operation, %v", name, n, failed)
				}
			}
			return finish(co, []*Socket{stream, conn}, echoes)
		})
	})
}

func BenchmarkRecvIntoSendAll(b *testing.B) {
	for _, name := range backendNames {
		b.Run(name, func(b *testing.B) {
			l := newLoop(b, name)
			run(b, l, func(co *loop.Coro) error {
				s, peer := tcpPair(b, co)
				echo := echoTask(co, peer, 4096)
				p := make([]byte, 512)
				if err := roundTrip(co, s, p); err != nil {
					return err
				}
				b.ReportAllocs()
				b.SetBytes(int64(len(p)))
				b.ResetTimer()
				for range b.N {
					if err := roundTrip(co, s, p); err != nil {
						return err
					}
				}
				b.StopTimer()
				return finish(co, []*Socket{s}, []*loop.Task[struct{}]{echo})
			})
		})
	}
}

// finish closes the sockets and waits for the tasks that echo to them.
func finish(co *loop.Coro, sockets []*Socket, echoes []*loop.Task[struct{}]) error {
	for _, s := range sockets {
		if err := CloseWait(co, s); err != nil {
			return err
		}
	}
	for _, echo := range echoes {
		if _, err := echo.Await(co); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkIdleConnection reports how much of this process's memory a connection
// takes that has echoed once and whose task waits for more, without that task's
// own buffer. Run it with -benchtime 1x.
func BenchmarkIdleConnection(b *testing.B) {
	const connections = 2000
	for _, name := range backendNames {
		b.Run(name, func(b *testing.B) {
			l := newLoop(b, name)
			run(b, l, func(co *loop.Coro) error {
				var buf [1]byte
				var peers []*Socket
				var waiting []*loop.Task[struct{}]
				for range b.N {
					before := memory()
					for range connections {
						s, peer, err := Pair(unix.SOCK_STREAM)
						if err != nil {
							return err
						}
						peers = append(peers, peer)
						waiting = append(waiting, spawn(co, func(co *loop.Coro) (struct{}, error) {
							for {
								if _, err := RecvInto(co, s, buf[:]); err == io.EOF {
									return struct{}{}, s.Close()
								}
								if err := SendAll(co, s, buf[:]); err != nil {
									return struct{}{}, err
								}
							}
						}))
						if err := roundTrip(co, peer, make([]byte, 1)); err != nil {
							return err
						}
					}
					used := memory() - before - connections*uint64(unsafe.Sizeof(Socket{}))
					b.ReportMetric(float64(used)/connections, "B/connection")
					if err := finish(co, peers, waiting); err != nil {
						return err
					}
					peers, waiting = peers[:0], waiting[:0]
				}
				return nil
			})
		})
	}
}

// memory returns the bytes of the heap and of stacks in use.
func memory() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// BenchmarkAwaitSwitch measures one suspension of a task and its resumption.
func BenchmarkAwaitSwitch(b *testing.B) {
	const tasks = 100
	for _, name := range backendNames {
		b.Run(name, func(b *testing.B) {
			l := newLoop(b, name)
			run(b, l, func(co *loop.Coro) error {
				b.ReportAllocs()
				done := make([]*loop.Task[struct{}], tasks)
				for i := range done {
					done[i] = spawn(co, func(co *loop.Coro) (struct{}, error) {
						for range b.N/tasks + 1 {
							if err := loop.Sleep(co, 0); err != nil {
								return struct{}{}, err
							}
						}
						return struct{}{}, nil
					})
				}
				yield(b, co, 1)
				b.ResetTimer()
				for _, task := range done {
					if _, err := task.Await(co); err != nil {
						return err
					}
				}
				b.StopTimer()
				return nil
			})
		})
	}
}

func BenchmarkSendToRecvFromInto(b *testing.B) {
	for _, name := range backendNames {
		b.Run(name, func(b *testing.B) {
			l := newLoop(b, name)
			s, addr := packet(b, "udp", "127.0.0.1:0")
			run(b, l, func(co *loop.Coro) error {
				p := make([]byte, 512)
				b.ReportAllocs()
				for range b.N {
					if _, err := SendTo(co, s, p, addr); err != nil {
						return err
					}
					if _, _, err := RecvFromInto(co, s, p); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}

func BenchmarkAccept(b *testing.B) {
	for _, name := range backendNames {
		b.Run(name, func(b *testing.B) {
			l := newLoop(b, name)
			ln, addr := listen(b, "tcp", "127.0.0.1:0")
			any := IPAddr(netip.MustParseAddrPort("127.0.0.1:0"))
			run(b, l, func(co *loop.Coro) error {
				b.ReportAllocs()
				for range b.N {
					if err := connectAndClose(co, ln, addr, any); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}

func connectAndClose(co *loop.Coro, ln *Socket, addr, local Addr) error {
	s, err := New(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := s.SetLinger(0); err != nil { // so that no port lingers
		return err
	}
	if err := s.Bind(local); err != nil {
		return err
	}
	if err := Connect(co, s, addr); err != nil {
		return err
	}
	conn, _, err := Accept(co, ln)
	if err != nil {
		return err
	}
	if err := CloseWait(co, s); err != nil {
		return err
	}
	return CloseWait(co, conn)
}
