package e2e

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// collectorAddress is on the node, beyond every pod: records and checkpoints go
// there, and outlive the pods that they are of.
const collectorAddress = nodeIP + ":8088"

// collector is the sink and the anchor of every engine: what a platform team
// keeps of its agents' logs.
type collector struct {
	server *http.Server

	mu       sync.Mutex
	sessions map[string]map[int]string // :: session -> sequence number -> line
	notes    int                       // checkpoints
}

func startCollector() (*collector, error) {
	l, err := net.Listen("tcp", collectorAddress)
	if err != nil {
		return nil, err
	}
	c := &collector{sessions: map[string]map[int]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /records", c.take)
	mux.HandleFunc("POST /anchor", func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		c.mu.Lock()
		c.notes++
		c.mu.Unlock()
	})
	c.server = &http.Server{Handler: mux}
	go c.server.Serve(l)
	return c, nil
}

// take keeps records. What is delivered again replaces itself.
func (c *collector) take(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = z
	}
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var record struct {
			Session string `json:"session_id"`
			Payload struct {
				Seq int `json:"seq"`
			} `json:"payload"`
		}
		if err := json.Unmarshal(lines.Bytes(), &record); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		if c.sessions[record.Session] == nil {
			c.sessions[record.Session] = map[int]string{}
		}
		c.sessions[record.Session][record.Payload.Seq] = lines.Text()
		c.mu.Unlock()
	}
	if err := lines.Err(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

// verify checks every log that was ever delivered, with the auditor's tool.
func (c *collector) verify() (sessions, records int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, session := range slices.Sorted(maps.Keys(c.sessions)) {
		log := c.log(session)
		file := filepath.Join(suite.dir, session+".log")
		if err := os.WriteFile(file, []byte(strings.Join(log, "\n")+"\n"), 0o600); err != nil {
			return 0, 0, err
		}
		if said, err := exec.Command(filepath.Join(suite.dir, "bin", "aegrail-engine"), "audit", "verify", file).CombinedOutput(); err != nil {
			return 0, 0, fmt.Errorf("the log of %s, as it was delivered, does not verify: %w\n%s", session, err, said)
		}
		records += len(c.sessions[session])
	}
	return len(c.sessions), records, nil
}

// log are the lines of a session in their order, after those of the session that
// it goes on from: an engine that is started again goes on with its log.
func (c *collector) log(session string) (lines []string) {
	at := c.sessions[session]
	seqs := slices.Sorted(maps.Keys(at))
	for other, its := range c.sessions {
		if line, ok := its[seqs[0]-1]; ok && hash(line, "event_hash") == hash(at[seqs[0]], "prev_hash") {
			lines = c.log(other)
		}
	}
	for _, seq := range seqs {
		lines = append(lines, at[seq])
	}
	return lines
}

// hash is a member of a record that has one.
func hash(line, name string) string {
	_, rest, _ := strings.Cut(line, `"`+name+`":"`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}
