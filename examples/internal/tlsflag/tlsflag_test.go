package tlsflag

import (
	"crypto/x509"
	"encoding/pem"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// parse returns what the flags stand for.
func parse(t *testing.T, args ...string) *Flags {
	t.Helper()
	f := &Flags{}
	fs := flag.NewFlagSet("test", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	f.Register(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestWithoutFlagsThereIsNoTLS(t *testing.T) {
	if cfg, err := parse(t).Config(); cfg != nil || err != nil {
		t.Errorf("got %v, %v", cfg, err)
	}
}

func TestAGeneratedCertificateIsGoodForLocalhost(t *testing.T) {
	cfg, err := parse(t, "-tls").Config()
	if err != nil {
		t.Fatal(err)
	}
	leaf := cfg.Certificates[0].Leaf
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestACertificateIsReadFromFiles(t *testing.T) {
	pair, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		keyFile:  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := parse(t, "-cert", certFile, "-key", keyFile).Config()
	if err != nil || string(cfg.Certificates[0].Certificate[0]) != string(pair.Certificate[0]) {
		t.Errorf("got %v, %v", cfg, err)
	}
	if _, err := parse(t, "-cert", certFile, "-key", dir).Config(); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a folder as key: %v", err)
	}
	if _, err := parse(t, "-cert", certFile).Config(); err == nil {
		t.Error("a certificate without key is taken")
	}
}
