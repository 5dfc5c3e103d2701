package transport

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// player is one end of a connection that does at random what a protocol may do,
// in every callback and between them, and finds callbacks that should not come.
type player struct {
	t       *testing.T
	rand    *rand.Rand
	name    string
	tr      Transport
	proto   *mask
	sent    []byte
	got     []byte
	story   []string
	depth   int // of calls of the transport
	made    bool
	eof     bool
	lost    bool
	paused  bool
	full    bool
	closing bool
	tired   bool // does nothing more
}

// mask is the protocol that a player has for now: it receives in one way or the
// other.
type mask struct{ p *player }

type (
	plainMask    struct{ mask }
	bufferedMask struct {
		mask
		buf []byte
	}
)

func (p *player) wrong(format string, args ...any) {
	p.t.Errorf("%s: %s, after %v", p.name, fmt.Sprintf(format, args...), p.story)
}

// newMask gives the player another protocol.
func (p *player) newMask() Protocol {
	if p.rand.IntN(2) == 0 {
		m := &plainMask{mask{p}}
		p.proto = &m.mask
		return m
	}
	m := &bufferedMask{mask: mask{p}}
	p.proto = &m.mask
	return m
}

// act does something with the transport.
func (p *player) act() {
	if p.depth > 2 || p.tired {
		return
	}
	p.depth++
	defer func() { p.depth-- }()
	switch k := p.rand.IntN(200); {
	case k < 60:
		p.write()
	case k < 80:
		p.story, p.paused = append(p.story, "PauseReading"), true
		check(p.t, p.tr.PauseReading())
	case k < 120:
		p.resume()
	case k < 140:
		p.story = append(p.story, "SetProtocol")
		p.tr.SetProtocol(p.newMask())
	case k < 150:
		high := p.rand.IntN(200_000)
		check(p.t, p.tr.SetWriteBufferLimits(high, p.rand.IntN(high+1)))
	case k == 150:
		p.story, p.closing = append(p.story, "Close"), true
		p.tr.Close()
	case k == 151:
		p.story, p.closing = append(p.story, "Abort"), true
		p.tr.Abort()
	}
}

func (p *player) write() {
	n := 1 + p.rand.IntN(3000)
	if p.rand.IntN(8) == 0 {
		n = 1 + p.rand.IntN(400_000)
	}
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(p.rand.Uint32())
	}
	if !p.tr.IsClosing() {
		p.story = append(p.story, fmt.Sprintf("Write(%d)", n))
		p.sent = append(p.sent, data...) // before what PauseWriting writes
	}
	check(p.t, p.tr.Write(data))
}

func (p *player) resume() {
	p.story, p.paused = append(p.story, "ResumeReading"), false
	check(p.t, p.tr.ResumeReading())
}

// called notes a callback.
func (m *mask) called(what string) {
	p := m.p
	p.story = append(p.story, what)
	switch {
	case m != p.proto:
		p.wrong("%s of a protocol that was replaced", what)
	case p.lost || !p.made:
		p.wrong("%s before ConnectionMade or after ConnectionLost", what)
	}
}

// delivered is called for data and the end.
func (p *player) delivered(what string) {
	if p.eof || p.paused || p.closing || p.depth > 0 {
		p.wrong("%s: after the end %v, paused %v, closing %v, %d calls deep", what, p.eof, p.paused, p.closing, p.depth)
	}
}

func (m *mask) ConnectionMade(t Transport) {
	m.p.tr = t
	if m.p.made {
		m.p.wrong("ConnectionMade again")
	}
	m.p.made = true
	m.called("made")
	m.p.act()
}

func (m *mask) ConnectionLost(error) {
	m.called("lost")
	if m.p.depth > 0 {
		m.p.wrong("ConnectionLost from inside a call")
	}
	m.p.act()
	m.p.lost = true
}

func (m *mask) EOFReceived() bool {
	m.called("eof")
	m.p.delivered("EOFReceived")
	m.p.eof = true
	m.p.act()
	return m.p.rand.IntN(2) == 0
}

func (m *mask) PauseWriting()  { m.flow("pause", true) }
func (m *mask) ResumeWriting() { m.flow("resume", false) }

func (m *mask) flow(what string, full bool) {
	m.called(what)
	if m.p.full == full {
		m.p.wrong("%s twice", what)
	}
	m.p.full = full
	m.p.act()
}

func (m *mask) take(data []byte) {
	m.called(fmt.Sprintf("data(%d)", len(data)))
	m.p.delivered("data")
	m.p.got = append(m.p.got, data...)
	m.p.act()
}

func (m *plainMask) DataReceived(data []byte) { m.take(data) }

func (m *bufferedMask) GetBuffer(int) []byte {
	m.called("GetBuffer")
	if m.p.depth > 0 {
		m.p.wrong("GetBuffer from inside a call")
	}
	m.buf = make([]byte, 1+m.p.rand.IntN(5000))
	if m.p.rand.IntN(10) == 0 {
		m.p.act()
	}
	return m.buf
}

func (m *bufferedMask) BufferUpdated(n int) { m.take(m.buf[:n]) }

func TestCallbacksKeepTheirContractWhateverAProtocolDoes(t *testing.T) {
	seeds := uint64(20)
	if testing.Short() {
		seeds = 4
	}
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for seed := range seeds {
			for _, withTLS := range []bool{false, true} {
				play(t, co, seed, withTLS)
				if t.Failed() {
					t.Fatalf("with seed %d, TLS: %v", seed, withTLS)
				}
			}
		}
	})
}

// play connects two players and lets them act.
func play(t *testing.T, co *loop.Coro, seed uint64, withTLS bool) {
	r := rand.New(rand.NewPCG(seed, 0))
	a, b := &player{t: t, rand: r, name: "a"}, &player{t: t, rand: r, name: "b"}
	var client ConnectOptions
	var server AcceptedOptions
	if withTLS {
		client.TLS, server.TLS = trusting(), serverTLS()
	}
	ours, theirs, err := sockapi.Pair(unix.SOCK_STREAM)
	check(t, err)
	client.Sock = ours
	// It fails if the client closes the connection at once.
	accepting := co.Loop().Go(func(co *loop.Coro) error {
		_, _, _ = ConnectAcceptedSocket(co, b.newMask, theirs, &server)
		return nil
	})
	_, _, err = CreateConnection(co, a.newMask, "", "", &client)
	check(t, err)
	_ = must2(accepting.Await(co))(t)
	players := slices.DeleteFunc([]*player{a, b}, func(p *player) bool { return !p.made })
	for range 60 {
		for _, p := range players {
			if !p.lost {
				p.act()
			}
		}
		check(t, loop.Sleep(co, 0))
	}
	a.tired, b.tired = true, true
	until(t, co, "everything has arrived", func() bool {
		for _, p := range players {
			p.resume()
		}
		return a.closing || b.closing || a.eof || b.eof || len(a.got) == len(b.sent) && len(b.got) == len(a.sent)
	})
	for _, p := range players {
		p.closing = true
		p.tr.Abort()
		until(t, co, "the connection is lost", func() bool { return p.lost })
	}
	if !bytes.HasPrefix(b.sent, a.got) || !bytes.HasPrefix(a.sent, b.got) {
		t.Error("what has arrived is not what was sent")
	}
}

// A stream has a test of its own.
func TestTheDescriptorOfEveryTransportIsOpenDuringConnectionLost(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for end, lose := range map[string]func(Conn){"Close": Conn.Close, "Abort": Conn.Abort} {
			looked := 0
			lookAt := func(what string, fd int) {
				var st unix.Stat_t
				if err := unix.Fstat(fd, &st); err != nil {
					t.Errorf("%s, %s: descriptor %d: %v", what, end, fd, err)
				}
				looked++
			}
			lookAtSocket := func(what string, c Conn) {
				v, _ := c.ExtraInfo(ExtraSocket)
				lookAt(what, v.(*TransportSocket).Fd())
			}
			lookAtFile := func(what string, f *os.File) {
				check(t, onFD(f, func(fd int) error { lookAt(what, fd); return nil }))
			}
			r, w := osPipe(t)
			reader, writer, overTLS := &recorder{}, &recorder{}, &recorder{}
			reader.onLost = func() { lookAtFile("read pipe", r) }
			writer.onLost = func() { lookAtFile("write pipe", w) }
			overTLS.onLost = func() { lookAtSocket("TLS", overTLS.t) }
			packets := &rebinder{}
			packets.over = func() { lookAtSocket("datagram", packets.t) }

			lose(writePipeOf(t, co, writer, w))
			check(t, writer.untilLost(t, co))
			lose(readPipeOf(t, co, reader, r))
			check(t, reader.untilLost(t, co))
			tr, peer := secured(t, co, overTLS, serverTLS(), nil)
			lose(tr)
			wait := elsewhere(t, co, func() error { _ = peer.Close(); return nil })
			check(t, overTLS.untilLost(t, co))
			wait()
			_, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return packets }, &DatagramOptions{LocalAddr: anyPort})
			check(t, err)
			lose(packets.t)
			check(t, packets.untilLost(t, co))
			if looked != 4 {
				t.Errorf("%s: %d transports were looked at", end, looked)
			}
		}
	})
}
