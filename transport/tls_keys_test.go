package transport

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// sealer makes the records of a TLS 1.3 client with TLS_AES_128_GCM_SHA256.
type sealer struct {
	secret, iv []byte
	aead       cipher.AEAD
	seq        uint64
}

// newSealer goes on where a client has ended that has written its key log and
// nothing since its handshake.
func newSealer(t *testing.T, client *tls.Conn, keyLog string) *sealer {
	t.Helper()
	if suite := client.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skipf("crypto/tls prefers %s on this machine, of which the test cannot make records", tls.CipherSuiteName(suite))
	}
	s := &sealer{}
	for line := range strings.Lines(keyLog) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			s.use(t, ok[[]byte](t)(hex.DecodeString(f[2])))
		}
	}
	return s
}

// expand is HKDF-Expand-Label.
func (s *sealer) expand(t *testing.T, label string, n int) []byte {
	t.Helper()
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(len("tls13 ")+len(label)))
	return ok[[]byte](t)(hkdf.Expand(sha256.New, s.secret, string(info)+"tls13 "+label+"\x00", n))
}

// use takes the keys of a secret.
func (s *sealer) use(t *testing.T, secret []byte) {
	t.Helper()
	s.secret, s.seq = secret, 0
	block := ok[cipher.Block](t)(aes.NewCipher(s.expand(t, "key", 16)))
	s.aead, s.iv = ok[cipher.AEAD](t)(cipher.NewGCM(block)), s.expand(t, "iv", 12)
}

// seal returns a record of a type.
func (s *sealer) seal(kind byte, data ...byte) []byte {
	header := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(data)+1+s.aead.Overhead()))
	nonce := binary.BigEndian.AppendUint64(make([]byte, 4), s.seq)
	for i := range nonce {
		nonce[i] ^= s.iv[i]
	}
	s.seq++
	return s.aead.Seal(header, nonce, append(data, kind), header)
}

// keysAndData returns n requests for new keys, each with a byte of data behind it.
func (s *sealer) keysAndData(t *testing.T, n int) (records []byte) {
	t.Helper()
	for range n {
		records = append(records, s.seal(22, 24, 0, 0, 1, 1)...)
		s.use(t, s.expand(t, "traffic upd", sha256.Size))
		records = append(records, s.seal(23, 'x')...)
	}
	return records
}

// keyed connects a client whose records the test makes with a transport.
func keyed(t *testing.T, co *loop.Coro, p Protocol) (client *tls.Conn, s *sealer) {
	t.Helper()
	ours, raw := blockingPair(t)
	check(t, unix.SetsockoptInt(ours.Fd(), unix.SOL_SOCKET, unix.SO_SNDBUF, 1)) // or it takes long to fill
	var keyLog bytes.Buffer
	config := trusting()
	config.KeyLogWriter = &keyLog
	client = tls.Client(raw, config)
	wait := elsewhere(t, co, client.Handshake)
	_, _, err := ConnectAcceptedSocket(co, protocolOf(p), ours, &AcceptedOptions{TLS: serverTLS(), ShutdownTimeout: 20 * time.Millisecond})
	check(t, err)
	wait()
	return client, newSealer(t, client, keyLog.String())
}

func TestAPeerThatReadsMayAskForNewKeysAnyNumberOfTimes(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		client, s := keyed(t, co, p)
		// Not client, which takes so many answers without data for an attack.
		read := elsewhere(t, co, func() error { _, err := io.Copy(io.Discard, client.NetConn()); return err })
		const rounds, each = 40, 100 // for answers of more than tlsAnswers
		for i := range rounds {
			elsewhere(t, co, func() error { _, err := client.NetConn().Write(s.keysAndData(t, each)); return err })()
			until(t, co, "everything is answered", func() bool { return p.data.Len() == (i+1)*each && p.t.WriteBufferSize() == 0 })
		}
		check(t, client.NetConn().(*net.UnixConn).CloseWrite())
		check(t, p.untilLost(t, co))
		read()
	})
}

func TestAPeerThatAsksForNewKeysAndReadsNoAnswersIsLost(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		client, s := keyed(t, co, p)
		most := 0
		p.onData = func([]byte) { most = max(most, p.t.(TLSTransport).WriteBufferSize()) }
		wait := elsewhere(t, co, func() error {
			for range 100 { // far more than are borne
				if _, err := client.NetConn().Write(s.keysAndData(t, 1000)); err != nil {
					return nil
				}
			}
			return errors.New("a hundred thousand requests were accepted")
		})
		if err := p.untilLost(t, co); !errors.Is(err, errAnswers) {
			t.Errorf("the connection was lost with %v", err)
		}
		wait()
		if most > 1<<20 {
			t.Errorf("%d bytes were buffered", most)
		}
	})
}
