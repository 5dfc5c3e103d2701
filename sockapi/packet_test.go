package sockapi

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

func TestAPacketOfASequencedSocketIsReceivedWholeOrCutOff(t *testing.T) {
	forEachConfiguration(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_SEQPACKET)
		run(t, l, func(co *loop.Coro) error {
			large := randomBytes(60 << 10)
			for _, n := range []int{len(large), 64 << 10, 4096, 2048, 1} {
				for _, p := range [][]byte{large, []byte("next")} {
					if err := SendAll(co, b, p); err != nil {
						return err
					}
				}
				got, err := Recv(co, a, n)
				if err != nil || !bytes.Equal(got, large[:min(n, len(large))]) {
					t.Errorf("Recv of up to %d bytes: %d bytes, %v, or wrong ones", n, len(got), err)
				}
				if got, err := Recv(co, a, 4096); string(got) != "next" || err != nil {
					t.Errorf("the packet after one cut off at %d bytes: %d bytes, %v", n, len(got), err)
				}
			}
			return nil
		})
	})
}

func TestAPacketThatACancelledReceiveTookStaysOnePacket(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		for _, typ := range []int{unix.SOCK_SEQPACKET, unix.SOCK_DGRAM} {
			a, b := pair(t, typ)
			run(t, l, func(co *loop.Coro) error {
				waiting := spawn(co, func(co *loop.Coro) ([]byte, error) { return Recv(co, a, 100) })
				yield(t, co, 3)
				for _, p := range []string{"packet", "next"} {
					if _, err := unix.Write(b.Fd(), []byte(p)); err != nil {
						return err
					}
				}
				yield(t, co, 1)
				waiting.Cancel("") // just when the completion is about to be delivered
				if got, err := waiting.Await(co); err == nil {
					t.Errorf("the cancelled call returned %q", got)
				}
				for _, want := range []string{"pa", "next"} {
					var p [100]byte
					size := len(p)
					if want == "pa" {
						size = 2
					}
					if n, err := RecvInto(co, a, p[:size]); string(p[:n]) != want || err != nil {
						t.Errorf("type %d: %q, %v, want %q", typ, p[:n], err, want)
					}
				}
				return nil
			})
		}
	})
}

func TestManyPiecesAreOnePacket(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		for _, typ := range []int{unix.SOCK_SEQPACKET, unix.SOCK_DGRAM} {
			a, b := pair(t, typ)
			run(t, l, func(co *loop.Coro) error {
				want := randomBytes(3 * backend.MaxBufs)
				var bufs [][]byte
				for p := range slices.Chunk(want, 2) {
					bufs = append(bufs, p)
				}
				if err := SendAllV(co, a, bufs); err != nil {
					return err
				}
				got, err := Recv(co, b, len(want)+1)
				if !bytes.Equal(got, want) {
					t.Errorf("type %d: received %d bytes of %d", typ, len(got), len(want))
				}
				return err
			})
		}
	})
}

// The packet arrives, and the call is cancelled before it is told so.
func TestACancelledReceiveLeavesThePacketWhole(t *testing.T) {
	small := map[string]func(co *loop.Coro, s *Socket) error{
		"Recv":         func(co *loop.Coro, s *Socket) error { _, err := Recv(co, s, 4); return err },
		"RecvInto":     func(co *loop.Coro, s *Socket) error { _, err := RecvInto(co, s, make([]byte, 4)); return err },
		"RecvFrom":     func(co *loop.Coro, s *Socket) error { _, _, err := RecvFrom(co, s, 4); return err },
		"RecvFromInto": func(co *loop.Coro, s *Socket) error { _, _, err := RecvFromInto(co, s, make([]byte, 4)); return err },
	}
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		for name, call := range small {
			udp, addr := packet(t, "udp", "127.0.0.1:0")
			from, sender := packet(t, "udp", "127.0.0.1:0")
			seq, other := pair(t, unix.SOCK_SEQPACKET)
			run(t, l, func(co *loop.Coro) error {
				for _, s := range []*Socket{udp, seq} {
					receiving := spawn(co, func(co *loop.Coro) (struct{}, error) { return struct{}{}, call(co, s) })
					yield(t, co, 3)
					var err error
					if _, serr := l.CallSoon(func() {
						if s == seq {
							_, err = unix.Write(other.Fd(), []byte("0123456789"))
						} else {
							err = unix.Sendto(from.Fd(), []byte("0123456789"), 0, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: [4]byte{127, 0, 0, 1}})
						}
						_, _ = l.CallSoon(func() { receiving.Cancel("") })
					}); serr != nil {
						return serr
					}
					if _, err := receiving.Await(co); !errors.Is(err, loop.ErrCancelled) {
						t.Errorf("%s: %v", name, err)
					}
					if err != nil {
						return err
					}
					got, who, err := RecvFrom(co, s, 100)
					if string(got) != "0123456789" || err != nil || s == udp && who != sender {
						t.Errorf("after a cancelled %s: %q from %v, %v", name, got, who, err)
					}
				}
				return nil
			})
		}
	})
}

// TestRandomCancelsLoseNoPacket lets calls of every kind, of which some are
// cancelled, receive packets that are numbered.
func TestRandomCancelsLoseNoPacket(t *testing.T) {
	const packets = 400
	forEachConfiguration(t, func(t *testing.T, l *loop.Loop) {
		for _, typ := range []int{unix.SOCK_SEQPACKET, unix.SOCK_DGRAM} {
			a, b := pair(t, typ)
			rnd := rand.New(rand.NewPCG(uint64(typ), 9))
			run(t, l, func(co *loop.Coro) error {
				sender := spawn(co, func(co *loop.Coro) (struct{}, error) { return struct{}{}, sendNumbered(co, b, packets, rnd) })
				var got []string
				for len(got) < packets {
					call := spawn(co, func(co *loop.Coro) (struct{}, error) {
						p, err := receiveAny(co, a, rnd)
						if err == nil {
							got = append(got, string(p[:min(4, len(p))]))
						}
						return struct{}{}, err
					})
					yield(t, co, rnd.IntN(4))
					if rnd.IntN(3) == 0 {
						call.Cancel("")
					}
					if _, err := call.Await(co); err != nil && !errors.Is(err, loop.ErrCancelled) {
						return err
					}
				}
				for i, p := range got {
					if want := fmt.Sprintf("%04d", i); !strings.HasPrefix(want, p) || p == "" {
						t.Fatalf("type %d: packet %d begins with %q", typ, i, p)
					}
				}
				_, err := sender.Await(co)
				return err
			})
		}
	})
}

// sendNumbered sends packets of random sizes that begin with their number.
func sendNumbered(co *loop.Coro, s *Socket, packets int, rnd *rand.Rand) error {
	for i := range packets {
		p := fmt.Appendf(nil, "%04d", i)
		if _, err := SendTo(co, s, append(p, make([]byte, rnd.IntN(5000))...), Addr{}); err != nil {
			return err
		}
		for range rnd.IntN(3) {
			if err := loop.Sleep(co, 0); err != nil {
				return err
			}
		}
	}
	return nil
}
