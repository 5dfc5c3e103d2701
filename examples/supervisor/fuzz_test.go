package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzConfig reads anything as a file of commands. What it accepts must be the
// same when it is written anew.
func FuzzConfig(f *testing.F) {
	for _, s := range []string{"", "a: true", "# no\n\n a : b : c \r\n", "a:\n", ": x", "a: 1\na: 2", "no colon", "\x00: \xff"} {
		f.Add(s)
	}
	read := func(t *testing.T, text string) (*config, error) {
		name := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return parseConfig([]string{"-config", name}, io.Discard)
	}
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := read(t, text)
		if err != nil {
			return
		}
		var again strings.Builder
		for _, c := range cfg.commands {
			if c.name == "" || c.line == "" || strings.ContainsAny(c.name+c.line, "\n") || strings.Contains(c.name, ":") {
				t.Errorf("command %q is %q", c.name, c.line)
			}
			again.WriteString(c.name + ":" + c.line + "\n")
		}
		copied, err := read(t, again.String())
		if err != nil || len(copied.commands) != len(cfg.commands) {
			t.Fatalf("%q: %v", again.String(), err)
		}
		for i, c := range copied.commands {
			if c != cfg.commands[i] {
				t.Errorf("%q became %q", cfg.commands[i], c)
			}
		}
	})
}
