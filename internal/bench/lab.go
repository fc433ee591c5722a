package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// sizes is how long and how large a run is.
type sizes struct {
	passes       int
	warm, window time.Duration
	sseRounds    int
	idle         int           // connections
	seen         int           // names of a first sight, at most seenPlaces
	huge         int64         // bytes
	benchtime    time.Duration // of an in-process figure
}

func fullSizes() sizes {
	return sizes{
		passes: 3, warm: 300 * time.Millisecond, window: 1500 * time.Millisecond, sseRounds: 4,
		idle: 2000, seen: seenPlaces, huge: 1 << 30, benchtime: 200 * time.Millisecond,
	}
}

func quickSizes() sizes {
	return sizes{
		passes: 1, warm: 200 * time.Millisecond, window: 500 * time.Millisecond, sseRounds: 2,
		idle: 300, seen: 200, huge: 128 << 20, benchtime: 50 * time.Millisecond,
	}
}

// lab is what a run works with.
type lab struct {
	size       sizes
	only       *regexp.Regexp
	calls      bool   // print what proxies ask of the kernel
	dir        string // keys, configurations, audit logs; removed at the end
	self       string // this program
	cores      cores
	origin     *origin
	roots      *x509.CertPool // what clients trust
	progress   io.Writer
	peers      []peer
	engine     func(v variant) peer // of this tree
	missing    []string             // peers that cannot be measured, and why
	binarySize int64                // of the engine
}

// newLab makes keys, origin and the engine's binary, and finds the peers.
func newLab(ctx context.Context, size sizes, progress io.Writer) (*lab, error) {
	l := &lab{size: size, progress: progress}
	var err error
	if l.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if l.dir, err = os.MkdirTemp("", "aegrail-bench-"); err != nil {
		return nil, err
	}
	if err := l.findPeers(ctx); err != nil {
		return nil, errors.Join(err, l.close())
	}
	if l.cores, err = pin(); err != nil {
		return nil, errors.Join(err, l.close())
	}
	if l.roots, err = makePKI(l.dir); err != nil {
		return nil, errors.Join(fmt.Errorf("making keys: %w", err), l.close())
	}
	if l.origin, err = startOrigin(l.dir); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the origin: %w", err), l.close())
	}
	return l, nil
}

func (l *lab) close() error {
	var err error
	if l.origin != nil {
		err = l.origin.close()
	}
	return errors.Join(err, os.RemoveAll(l.dir))
}

// findPeers builds the engine and asks every peer's version. A peer that is
// not to be had is left out; the engine must build.
func (l *lab) findPeers(ctx context.Context) error {
	if p, err := haproxyPeer(ctx); err == nil {
		l.peers = append(l.peers, p)
	} else {
		l.missing = append(l.missing, "HAProxy: "+err.Error())
	}
	fmt.Fprintln(l.progress, "building the engine")
	binary, version, err := buildEngine(ctx, l.dir)
	if err != nil {
		return err
	}
	info, err := os.Stat(binary)
	if err != nil {
		return err
	}
	l.binarySize = info.Size()
	l.engine = func(v variant) peer { return enginePeer(binary, version, v) }
	l.peers = append(l.peers, l.engine(variant{}),
		goPeer(reverseName, runtime.Version()), goPeer(goproxyName, moduleVersion("github.com/elazarl/goproxy")))
	return nil
}

// buildEngine makes the engine of this tree as `make build` does.
func buildEngine(ctx context.Context, dir string) (binary, version string, err error) {
	const module = "github.com/arpitcoder/aegrail-engine"
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", "", fmt.Errorf("finding the engine's source (run this in internal/bench): %w", err)
	}
	root := strings.TrimSpace(string(out))
	binary = filepath.Join(dir, engineName)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./cmd/"+engineName)
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("building the engine: %w\n%s", err, out)
	}
	git := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty")
	git.Dir = root
	version = "this tree"
	if out, err := git.Output(); err == nil {
		version = strings.TrimSpace(string(out))
	}
	return binary, version, nil
}

func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version
			}
		}
	}
	return "?"
}

// run measures every row, pass by pass.
func (l *lab) run(ctx context.Context) (*results, error) {
	res := newResults()
	noise := watchCore(l.cores.proxy)
	standing := map[string]*running{}
	defer func() {
		for _, r := range standing {
			r.stop()
		}
	}()
	for _, p := range append([]peer{direct}, l.peers...) {
		r, err := l.start(ctx, p)
		if err != nil {
			return nil, err
		}
		standing[p.name] = r
	}
	if err := l.firstContact(ctx, standing); err != nil {
		return nil, err
	}
	for pass := range l.size.passes {
		for _, w := range l.rows() {
			if w.once && pass > 0 {
				continue
			}
			fmt.Fprintf(l.progress, "pass %d of %d: %s\n", pass+1, l.size.passes, w.name)
			for i := range l.peers {
				if i == 0 && w.added {
					l.one(ctx, res, w, standing[direct.name])
				}
				p := l.peers[(i+pass)%len(l.peers)]
				if w.who == nil || w.who(p) {
					l.one(ctx, res, w, standing[p.name])
				}
				if err := ctx.Err(); err != nil {
					return nil, err
				}
			}
		}
	}
	var ours time.Duration
	for _, r := range standing {
		if r.cmd != nil {
			cpu, err := cpuTime(r.pid())
			if err != nil {
				return nil, r.failed(err)
			}
			ours += cpu
		}
	}
	res.foreign = noise(ours + res.freshCPU)
	return res, nil
}

// firstContact lets every proxy mint its certificate: HAProxy fails the first
// handshake for a name, on each of its ports.
func (l *lab) firstContact(ctx context.Context, standing map[string]*running) error {
	for _, r := range standing {
		contacts := []func() error{func() error { return l.once(r, ordinary) }}
		if !r.small {
			contacts = append(contacts, func() error { return l.once(r, shortLive) })
		}
		if r.h2 {
			contacts = append(contacts, func() error {
				t := l.h2Client(r, remote)
				defer t.CloseIdleConnections()
				return l.call(ctx, t, grpcMessage(filler(small)))
			})
		}
		for _, contact := range contacts {
			err := contact()
			for try := 1; err != nil && try < 3; try++ {
				err = contact()
			}
			if err != nil {
				return r.failed(err)
			}
		}
	}
	return nil
}

// one measures one row of one proxy. A failure is a cell of the table.
func (l *lab) one(ctx context.Context, res *results, w row, r *running) {
	if w.fresh {
		own, err := l.start(ctx, r.peer)
		if err == nil {
			err = l.firstContact(ctx, map[string]*running{r.name: own})
			defer func() {
				if cpu, err := cpuTime(own.pid()); err == nil {
					res.freshCPU += cpu
				}
				own.stop()
			}()
		}
		if err != nil {
			res.add(w, r.name, nil, err)
			return
		}
		r = own
	}
	l.origin.took()
	values, err := w.run(ctx, l, r)
	for what, n := range l.origin.took() {
		if what != expected && what != "resumed" && err == nil {
			err = fmt.Errorf("%s: %d connections to the origin negotiated %s, all others %s", r.name, n, what, expected)
		}
	}
	res.add(w, r.name, values, err)
	if err != nil && ctx.Err() == nil {
		fmt.Fprintf(l.progress, "  %v\n", err)
	}
}

// rows are those that -only asks for.
func (l *lab) rows() []row {
	return slices.DeleteFunc(allRows(), func(w row) bool { return !l.only.MatchString(w.name) })
}

func (l *lab) versions() []string {
	var out []string
	for _, p := range l.peers {
		out = append(out, p.name+" "+p.version)
	}
	return out
}

// sortedKeys keeps output the same between runs.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
