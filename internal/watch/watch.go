// Package watch keeps what a program reads from files up to date: policies, certificates, mounted ConfigMaps.
package watch

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A change is settled settle after its first event: long enough for an editor
// or kubelet to finish, and counted from the first event so that a stream of
// them cannot put it off.
const settle = 150 * time.Millisecond

// recheck is how often files are read without an event. inotify does not see
// network file systems, nor a link that is swapped above a watched directory.
const recheck = 30 * time.Second

// The log may lie in the directory of a watched file, and then each of its writes
// is an event. After glance of events that concern nobody the watcher looks away
// for pause: what the kernel queues meanwhile it merges where it repeats, so that
// a file written ten thousand times a second wakes us a few dozen times.
const (
	glance = 2 * time.Millisecond
	pause  = 250 * time.Millisecond
)

// Item is something that is read from files that may change under way.
//
// Load reads the files anew. If what they say differs from what is in force,
// it checks everything, then swaps one pointer; on an error what was in force
// stays in force. Files lists what the last Load read.
type Item struct {
	Name  string // "policy", "ca": the cause in /readyz
	Files func() []string
	Load  func() (changed bool, err error)
}

// Watcher keeps what was read from files up to date.
//
// Directories are watched, not files: an editor replaces a file by rename, and
// a ConfigMap is a link to a directory that kubelet swaps by rename
// (policy.yaml -> ..data/policy.yaml, ..data -> ..2026_01_02), after which a
// watch on the file would look at what is gone.
type Watcher struct {
	items    []Item
	done     func(item string, changed bool, err error) // told after each load that found news
	logger   *slog.Logger
	events   *fsnotify.Watcher // nil where the kernel has none left: then only recheck and SIGHUP
	relevant map[string]bool   // :: cleaned path -> an event on it counts
}

// New watches the files of items. Done is told after each Load of what it brought: it is called from Run alone.
func New(items []Item, done func(string, bool, error), logger *slog.Logger) *Watcher {
	w := &Watcher{items: items, done: done, logger: logger, relevant: map[string]bool{}}
	events, err := fsnotify.NewWatcher()
	if err != nil {
		logger.Warn("file changes are only seen every "+recheck.String()+" and on SIGHUP: raise fs.inotify.max_user_instances", "err", err)
		return w
	}
	w.events = events
	w.follow()
	return w
}

// follow watches the directories that the files are in now, by their name and
// where links lead.
func (w *Watcher) follow() {
	if w.events == nil {
		return
	}
	for _, item := range w.items {
		for _, file := range item.Files() {
			w.add(file)
			if target, err := filepath.EvalSymlinks(file); err == nil {
				w.add(target)
			}
		}
	}
}

// add watches the directory of file, or the nearest one above that exists, in
// which what is missing will appear.
func (w *Watcher) add(file string) {
	for path := filepath.Clean(file); ; {
		w.relevant[path] = true
		dir := filepath.Dir(path)
		if slices.Contains(w.events.WatchList(), dir) {
			return
		}
		err := w.events.Add(dir)
		if errors.Is(err, fs.ErrNotExist) && dir != path {
			path = dir
			continue
		}
		if err != nil {
			w.logger.Warn("cannot watch a directory: its changes are only seen every "+recheck.String()+" and on SIGHUP", "dir", dir, "err", err)
		}
		return
	}
}

// Run loads what changed until ctx ends. It also loads everything on SIGHUP.
func (w *Watcher) Run(ctx context.Context) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	if w.events == nil {
		w.loop(ctx, nil, nil, hup)
		return
	}
	defer func() { _ = w.events.Close() }()
	w.loop(ctx, w.events.Events, w.events.Errors, hup)
}

// loop loads what changed by the events that come, until ctx ends. events and
// errs may be nil.
func (w *Watcher) loop(ctx context.Context, events <-chan fsnotify.Event, errs <-chan error, hup <-chan os.Signal) {
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	looking := events        // nil while the watcher looks away
	var due <-chan time.Time // set while a change settles
	var away, back <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-looking:
			if w.counts(e) {
				if due == nil {
					due = time.After(settle)
				}
			} else if away == nil {
				away = time.After(glance)
			}
		case <-away:
			looking, away, back = nil, nil, time.After(pause)
		case <-back:
			looking, back = events, nil
		case err := <-errs: // an overflowing queue: something changed, we do not know what
			w.logger.Warn("watching files", "err", err)
			due = time.After(settle)
		case <-due:
			due = nil
			w.load()
		case <-tick.C:
			w.load()
		case <-hup:
			w.load()
		}
	}
}

// counts reports whether an event may concern one of the files. Names that
// begin with two dots are kubelet's.
func (w *Watcher) counts(e fsnotify.Event) bool {
	return w.relevant[filepath.Clean(e.Name)] || strings.HasPrefix(filepath.Base(e.Name), "..")
}

// load loads every item anew. One that is broken does not keep the others from
// being taken.
func (w *Watcher) load() {
	w.follow() // first, so that what changes while we read is an event
	for _, item := range w.items {
		changed, err := item.Load()
		w.done(item.Name, changed, err)
	}
	w.follow() // what was read may name other files than before
}
