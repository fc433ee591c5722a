package intake

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// clientHello is the first flight of a client for name, as bytes.
func clientHello(t *testing.T, cfg *tls.Config) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		_ = tls.Client(theirs, cfg).Handshake()
	}()
	defer theirs.Close()
	defer ours.Close()
	var hello []byte
	head := make([]byte, 5)
	if _, err := io.ReadFull(ours, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(ours, body); err != nil {
		t.Fatal(err)
	}
	return append(append(hello, head...), body...)
}

// peek feeds pieces to PeekHello one write at a time.
func peek(t *testing.T, pieces ...[]byte) (*Hello, error) {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	go func() {
		for _, p := range pieces {
			if _, err := theirs.Write(p); err != nil {
				return
			}
		}
		theirs.Close()
	}()
	return PeekHello(ours)
}

func single(b []byte) [][]byte {
	var all [][]byte
	for i := range b {
		all = append(all, b[i:i+1])
	}
	return all
}

// records cuts a handshake record into records of n bytes (RFC 8446 section
// 5.1 allows it).
func records(hello []byte, n int) []byte {
	var out []byte
	for body := range slices.Chunk(hello[5:], n) {
		out = append(out, 22, 3, 1, byte(len(body)>>8), byte(len(body)))
		out = append(out, body...)
	}
	return out
}

func TestPeekHelloReadsTheNameAndKeepsTheBytes(t *testing.T) {
	hello := clientHello(t, &tls.Config{ServerName: "api.allowed.test", NextProtos: []string{"h2", "http/1.1"}})
	for name, pieces := range map[string][][]byte{
		"in one segment":                  {hello},
		"A11 in one-byte segments":        single(hello),
		"A11 in records of 40 bytes":      {records(hello, 40)},
		"A11 one-byte records, segmented": single(records(hello, 1)),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := peek(t, pieces...)
			if err != nil {
				t.Fatal(err)
			}
			if got.ServerName != "api.allowed.test" || got.ECH {
				t.Errorf("got %q, ECH %t", got.ServerName, got.ECH)
			}
			if want := slices.Concat(pieces...); !slices.Equal(got.Raw, want) {
				t.Errorf("Raw has %d bytes, %d were sent", len(got.Raw), len(want))
			}
		})
	}
}

func TestPeekHelloRefusesWhatIsNoHello(t *testing.T) {
	hello := clientHello(t, &tls.Config{ServerName: "api.allowed.test"})
	huge := []byte{22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff}
	for name, c := range map[string]struct {
		pieces [][]byte
		want   error // nil: any error of crypto/tls
	}{
		"A17 plain HTTP":        {[][]byte{[]byte("GET / HTTP/1.1\r\n\r\n")}, ErrNotTLS},
		"A17 SSH":               {[][]byte{[]byte("SSH-2.0-OpenSSH_9.2\r\n")}, ErrNotTLS},
		"a cut hello":           {[][]byte{hello[:len(hello)-1]}, io.EOF},
		"nothing":               {nil, io.EOF},
		"garbage in a record":   {[][]byte{append([]byte{22, 3, 1, 0, 8}, "garbage!"...)}, nil},
		"more than 64 KiB long": {[][]byte{append(huge, make([]byte, MaxHello)...)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := peek(t, c.pieces...)
			if err == nil {
				t.Fatalf("accepted: %q", got.ServerName)
			}
			if c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestPeekHelloKeepsTheDeadlineOfTheConnection(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	_ = ours.SetReadDeadline(time.Unix(1, 0))
	if _, err := PeekHello(ours); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want a timeout", err)
	}
}

func TestA05HostileNamesReachTheCallerAsTheyAre(t *testing.T) {
	// crypto/tls hands on NUL, newline and `*`: whoever compares names must
	// canonicalise them first.
	hello := clientHello(t, &tls.Config{ServerName: "evilxtest.allowed.test"})
	i := strings.Index(string(hello), "evilxtest")
	hello[i+4] = 0
	got, err := peek(t, hello)
	if err != nil {
		t.Fatal(err)
	}
	if got.ServerName != "evil\x00test.allowed.test" {
		t.Errorf("got %q", got.ServerName)
	}
}
