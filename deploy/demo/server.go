package main

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/arpitcoder/aegrail-engine/certs"
)

// server is a model server with an OpenAI-like API, on loopback, with a
// certificate that only its own root vouches for.
type server struct {
	port int
	http *http.Server

	streamGoesOn chan struct{} // closed once the agent has the first event
	release      sync.Once

	mu   sync.Mutex
	seen []string // "METHOD /path"
}

// startServer serves until Close. The root that vouches for it is written to
// rootFile.
func startServer(rootFile string) (*server, error) {
	authority, err := certs.NewEphemeral(time.Now())
	if err != nil {
		return nil, fmt.Errorf("making the model server's root: %w", err)
	}
	key, err := certs.NewLeafKey()
	if err != nil {
		return nil, fmt.Errorf("making the model server's key: %w", err)
	}
	leaf, err := authority.Mint(modelHost, key, time.Now())
	if err != nil {
		return nil, fmt.Errorf("making the model server's certificate: %w", err)
	}
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Certificate().Raw})
	if err := os.WriteFile(rootFile, root, 0o600); err != nil {
		return nil, fmt.Errorf("writing the model server's root: %w", err)
	}
	s := &server{streamGoesOn: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+chat, s.chat)
	s.http = &http.Server{
		Handler:           s.note(mux),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{*leaf}},
		ErrorLog:          log.New(io.Discard, "", 0),
		ReadHeaderTimeout: patience,
	}
	return s, s.listen()
}

func (s *server) listen() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening on loopback: %w", err)
	}
	s.port = ln.Addr().(*net.TCPAddr).Port
	go func() {
		if err := s.http.ServeTLS(ln, "", ""); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, "demo: the model server:", err)
		}
	}()
	return nil
}

// Close ends the server.
func (s *server) Close() { _ = s.http.Close() }

func (s *server) releaseStream() { s.release.Do(func() { close(s.streamGoesOn) }) }

func (s *server) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

func (s *server) note(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r.Method+" "+r.URL.Path)
		s.mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

// chat answers a completion, at once or as a stream.
func (s *server) chat(w http.ResponseWriter, r *http.Request) {
	var question struct{ Stream bool }
	if err := json.NewDecoder(r.Body).Decode(&question); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if question.Stream {
		s.stream(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintln(w, `{"choices":[{"message":{"role":"assistant","content":"Paris."}}]}`)
}

// stream sends one event, waits until the agent has it, and sends the others.
func (s *server) stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for i, word := range strings.Fields("one two three") {
		fmt.Fprintf(w, "data: %s\n\n", word)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		if i > 0 {
			continue
		}
		select {
		case <-s.streamGoesOn:
		case <-r.Context().Done():
			return
		}
	}
}
