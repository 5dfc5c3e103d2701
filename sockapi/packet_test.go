package sockapi

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

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
