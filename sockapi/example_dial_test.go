package sockapi_test

import (
	"fmt"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// One task accepts, another connects.
func ExampleDial() {
	runTask(func(co *loop.Coro) error {
		ln, err := sockapi.Listen("tcp4", "127.0.0.1:0", nil)
		if err != nil {
			return err
		}
		defer ln.Close()
		addr, err := ln.LocalAddr()
		if err != nil {
			return err
		}
		client := co.Loop().Go(func(co *loop.Coro) error {
			s, err := sockapi.Dial(co, "tcp4", addr.String())
			if err != nil {
				return err
			}
			defer s.Close()
			return sockapi.SendAll(co, s, []byte("hello"))
		})
		s, peer, err := sockapi.Accept(co, ln)
		if err != nil {
			return err
		}
		defer s.Close()
		got, err := sockapi.Recv(co, s, 100)
		if err != nil {
			return err
		}
		fmt.Printf("%s says %s\n", peer.AddrPort().Addr(), got)
		_, err = client.Await(co)
		return err
	})
	// Output: 127.0.0.1 says hello
}

// Packets keep their boundaries, and tell who has sent them.
func ExampleListenPacket() {
	runTask(func(co *loop.Coro) error {
		a, err := sockapi.ListenPacket("udp", "127.0.0.1:0", nil)
		if err != nil {
			return err
		}
		defer a.Close()
		b, err := sockapi.ListenPacket("udp", "127.0.0.1:0", nil)
		if err != nil {
			return err
		}
		defer b.Close()
		to, err := b.LocalAddr()
		if err != nil {
			return err
		}
		for _, text := range []string{"one", "two"} {
			if _, err := sockapi.SendTo(co, a, []byte(text), to); err != nil {
				return err
			}
		}
		me, err := a.LocalAddr()
		if err != nil {
			return err
		}
		for range 2 {
			got, from, err := sockapi.RecvFrom(co, b, 100)
			if err != nil {
				return err
			}
			fmt.Printf("%s, from the sender: %v\n", got, from == me)
		}
		return nil
	})
	// Output:
	// one, from the sender: true
	// two, from the sender: true
}
