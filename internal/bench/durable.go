package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"golang.org/x/sys/unix"
)

// logFigures are what the audit log costs, and what it makes durable.
type logFigures struct {
	system  string // file system that all of it is on
	fsyncs  float64
	durable []durable

	file, null float64 // CPU seconds of a keep-alive exchange, by where the log goes
	record     float64 // CPU seconds that a record takes to encode and chain
}

// durable is how many records a second strict commits.
type durable struct {
	inFlight int
	records  float64 // a second
	fsyncs   float64 // a second, of the log
}

// measureLog measures the log alone, in this process, and then what it costs of a
// keep-alive exchange of the engine.
func (l *lab) measureLog(ctx context.Context) (*logFigures, error) {
	f := &logFigures{system: fileSystem(l.dir)}
	var err error
	if f.record, err = recordCPU(l.size.window); err != nil {
		return nil, err
	}
	if f.fsyncs, err = fsyncRate(filepath.Join(l.dir, "fsync"), l.size.window); err != nil {
		return nil, err
	}
	for _, n := range []int{32, 128} {
		d, err := durableRate(filepath.Join(l.dir, fmt.Sprintf("durable-%d.jsonl", n)), n, l.size.window)
		if err != nil {
			return nil, err
		}
		f.durable = append(f.durable, d)
	}
	f.file, f.null, err = l.logShare(ctx)
	return f, err
}

// recordCPU is the CPU time of a record whose line nobody takes. The in-process
// figures are wall time, which does not go with that of a process.
func recordCPU(window time.Duration) (float64, error) {
	log, err := audit.Open(audit.Config{Stdout: io.Discard, Identity: "bench"})
	if err != nil {
		return 0, err
	}
	r := newRecords(log, 0)
	before, err := cpuTime(os.Getpid())
	n := 0
	for began := time.Now(); err == nil && time.Since(began) < window; n += 2 {
		err = r.request()
	}
	if err != nil {
		return 0, errors.Join(err, log.Close())
	}
	after, err := cpuTime(os.Getpid())
	return (after - before).Seconds() / float64(n), errors.Join(err, log.Close())
}

// fsyncRate is how often a second a file can be appended to and synced, one
// after the other: what one writer without group commit would have.
func fsyncRate(name string, window time.Duration) (float64, error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer os.Remove(name)
	defer file.Close()
	record := filler(small)
	n, began := 0, time.Now()
	for time.Since(began) < window {
		if _, err := file.Write(record); err != nil {
			return 0, err
		}
		if err := file.Sync(); err != nil {
			return 0, err
		}
		n++
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// durableRate is how many records a second a strict log takes from inFlight
// requests, each of which writes its decision, then its completion, and begins anew.
func durableRate(name string, inFlight int, window time.Duration) (durable, error) {
	d := durable{inFlight: inFlight}
	log, err := audit.Open(audit.Config{File: name, Durability: audit.Strict, Identity: "bench"})
	if err != nil {
		return d, err
	}
	defer os.Remove(name)
	var stop atomic.Bool
	var records atomic.Int64
	var all sync.WaitGroup
	failed := make(chan error, inFlight)
	for i := range inFlight {
		all.Go(func() {
			r := newRecords(log, uint64(i)<<32)
			for !stop.Load() {
				if err := r.request(); err != nil {
					failed <- err
					return
				}
				records.Add(2)
			}
		})
	}
	time.Sleep(window / 5)
	before, commits, began := records.Load(), log.Stats().Commits, time.Now()
	time.Sleep(window)
	took := time.Since(began).Seconds()
	d.records = float64(records.Load()-before) / took
	d.fsyncs = float64(log.Stats().Commits-commits) / took
	stop.Store(true)
	all.Wait()
	close(failed)
	return d, errors.Join(<-failed, log.Close())
}

// records is one request after another, as the log sees them.
type records struct {
	log    *audit.Log
	rec    audit.Record
	agent  audit.Agent
	id     uint64
	digest [64]byte
	path   []byte
}

func newRecords(log *audit.Log, from uint64) *records {
	r := &records{log: log, id: from, agent: audit.Agent{Identity: "bench"}, path: []byte("/v1/tenants/000007/items")}
	for i := range r.digest {
		r.digest[i] = "0123456789abcdef"[i%16]
	}
	return r
}

// request writes the two records of a request.
func (r *records) request() error {
	if err := r.decide(); err != nil {
		return err
	}
	r.rec.Phase, r.rec.StatusCode = audit.PhaseComplete, 200
	r.rec.RequestBytes, r.rec.ResponseBytes = small, small
	r.rec.RequestSHA256, r.rec.ResponseSHA256 = r.digest[:], r.digest[:]
	r.rec.Duration = 1234 * time.Microsecond
	return r.log.Complete(&r.rec)
}

func (r *records) decide() error {
	r.id++
	r.rec = audit.Record{
		Event: audit.EgressAllowed, Phase: audit.PhaseDecision, ID: r.id, Agent: &r.agent, Kind: "connect", Scheme: "https",
		Host: "service000007.tools.example.com", Port: 443, Method: "POST", Path: r.path, Rule: "rule000007", Policy: "bench",
		PolicyRevision: "sha256:0123456789ab", Attempt: 1, TLSVersion: "TLS 1.3", ALPN: "http/1.1", Mitm: true,
	}
	_, err := r.log.Decide(&r.rec)
	return err
}

// recordName is the row of what a record costs without a file: Decide and
// Complete of a log whose lines nobody takes.
const recordName = "one record: encoded, hashed, chained, written nowhere"

// benchRecord is half of a request's two records.
func benchRecord(b *testing.B) {
	log, err := audit.Open(audit.Config{Stdout: io.Discard, Identity: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	r := newRecords(log, 0)
	b.ReportAllocs()
	for odd := false; b.Loop(); odd = !odd {
		if odd {
			continue // the completion came with the decision before
		}
		if err := r.request(); err != nil {
			b.Fatal(err)
		}
	}
}

// logShare is the CPU time of a keep-alive exchange with the log in a file, and
// with the log on standard output, which is /dev/null. There is no engine without
// a log: what it costs to encode and to chain is in both.
func (l *lab) logShare(ctx context.Context) (file, null float64, err error) {
	var engine peer
	for _, p := range l.peers {
		if p.name == engineName {
			engine = p
		}
	}
	if engine.command == nil {
		return math.NaN(), math.NaN(), nil
	}
	sink, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return 0, 0, err
	}
	defer sink.Close()
	toNull := engine
	toNull.stdout = sink
	toNull.command = func(l *lab, dir string, addr [ways]string) (*exec.Cmd, error) {
		cmd, err := engine.command(l, dir, addr)
		if err != nil {
			return nil, err
		}
		for i, arg := range cmd.Args {
			if arg == "--audit-file" {
				cmd.Args = append(cmd.Args[:i:i], append([]string{"--audit-stdout"}, cmd.Args[i+2:]...)...)
				break
			}
		}
		return cmd, nil
	}
	var values [2][]float64
	standing := make([]*running, 2)
	for i, p := range []peer{engine, toNull} {
		if standing[i], err = l.start(ctx, p); err != nil {
			return 0, 0, err
		}
		defer standing[i].stop()
		if err := l.firstContact(ctx, map[string]*running{p.name: standing[i]}); err != nil {
			return 0, 0, err
		}
	}
	for range l.size.passes {
		for i, r := range standing {
			v, err := keepAlive(64, small)(ctx, l, r)
			if err != nil {
				return 0, 0, err
			}
			values[i] = append(values[i], v...)
		}
	}
	return median(values[0]), median(values[1]), nil
}

// markdown is the report's section.
func (f *logFigures) markdown(w io.Writer) {
	fmt.Fprintf(w, "\n## The log\n\nOn %s.\n\n", f.system)
	fmt.Fprintf(w, "| what | a second | fsyncs a second | records for each |\n|---|--:|--:|--:|\n")
	fmt.Fprintf(w, "| one writer that appends 1 KiB and syncs, one after the other | %.0f | %.0f | 1 |\n", f.fsyncs, f.fsyncs)
	for _, d := range f.durable {
		fmt.Fprintf(w, "| records committed by `strict`, %d requests in flight | %.0f | %.0f | %.1f |\n", d.inFlight, d.records, d.fsyncs, d.records/d.fsyncs)
	}
	const us = 1e6
	fmt.Fprintf(w, "\nThe engine cannot run without a log. What the log costs of a keep-alive exchange (1 KiB each way, 64 connections) is "+
		"what writing to a file costs beside /dev/null, and the encoding and chaining of two records, which is measured alone:\n\n")
	fmt.Fprintf(w, "| what | us CPU |\n|---|--:|\n| exchange, log in a file (written) | %.1f |\n| exchange, log to /dev/null | %.1f |\n", f.file*us, f.null*us)
	fmt.Fprintf(w, "| two records encoded, hashed and chained (in the process) | %.1f |\n| all of the log, as a share of the exchange without it | %s |\n",
		2*f.record*us, f.share())
}

// share is what the log adds to an exchange without it.
func (f *logFigures) share() string {
	without := f.null - 2*f.record
	if math.IsNaN(without) || without <= 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f%%", 100*(f.file-without)/without)
}

// fileSystem names the file system of a directory: an fsync on a memory file system
// says nothing of a disk.
func fileSystem(dir string) string {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return "a file system that cannot be asked its name"
	}
	kind := fmt.Sprintf("a file system of type %#x", uint64(s.Type))
	switch s.Type {
	case unix.EXT4_SUPER_MAGIC:
		kind = "ext4"
	case unix.XFS_SUPER_MAGIC:
		kind = "XFS"
	case unix.BTRFS_SUPER_MAGIC:
		kind = "Btrfs"
	case unix.TMPFS_MAGIC:
		kind = "tmpfs, which has no disk"
	case unix.OVERLAYFS_SUPER_MAGIC:
		kind = "overlayfs"
	}
	return kind
}
