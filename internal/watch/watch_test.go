package watch

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

// TestABusyFileBesideThePolicyWakesUsSeldom offers an event each 100 µs, as a log
// in the policy's directory does, and counts those that are looked at. What is
// not looked at, the kernel merges.
func TestABusyFileBesideThePolicyWakesUsSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loads := 0
		w := &Watcher{
			items: []Item{{
				Name: "policy", Files: func() []string { return []string{"/etc/engine/policy.yaml"} },
				Load: func() (bool, error) { loads++; return false, nil },
			}},
			done: func(string, bool, error) {}, logger: slog.New(slog.DiscardHandler),
			relevant: map[string]bool{"/etc/engine/policy.yaml": true},
		}
		ctx, cancel := context.WithCancel(t.Context())
		events := make(chan fsnotify.Event)
		ended := make(chan struct{})
		go func() { w.loop(ctx, events, nil, nil); close(ended) }()
		seen := 0
		for range 100_000 { // ten seconds
			synctest.Wait()
			select {
			case events <- fsnotify.Event{Name: "/etc/engine/audit.log", Op: fsnotify.Write}:
				seen++
			default:
			}
			time.Sleep(100 * time.Microsecond)
		}
		synctest.Wait()
		if seen == 0 || seen > 1000 {
			t.Errorf("%d of 100000 events were looked at, want a few and at most 1000", seen)
		}
		if loads != 0 {
			t.Errorf("the policy was read %d times for another file", loads)
		}
		events <- fsnotify.Event{Name: "/etc/engine/policy.yaml", Op: fsnotify.Write}
		time.Sleep(2 * settle)
		synctest.Wait()
		if loads != 1 {
			t.Errorf("the policy was read %d times after it changed, want once", loads)
		}
		cancel()
		<-ended
	})
}

// TestChangesAreSeenBesideABusyFile changes a file in each of the ways that
// files are changed while another file of the directory is written all the time.
func TestChangesAreSeenBesideABusyFile(t *testing.T) {
	for name, change := range map[string]func(dir, text string) error{
		"in place": func(dir, text string) error {
			return os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(text), 0o600)
		},
		"by rename": func(dir, text string) error {
			if err := os.WriteFile(filepath.Join(dir, "new"), []byte(text), 0o600); err != nil {
				return err
			}
			return os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "policy.yaml"))
		},
		"by a ConfigMap's swap": swap,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := change(dir, "one"); err != nil {
				t.Fatal(err)
			}
			policy := filepath.Join(dir, "policy.yaml")
			if _, err := os.Lstat(policy); os.IsNotExist(err) {
				if err := os.Symlink(filepath.Join("..data", "policy.yaml"), policy); err != nil {
					t.Fatal(err)
				}
			}
			var mu sync.Mutex
			text := ""
			w := New([]Item{{
				Name: "policy", Files: func() []string { return []string{policy} },
				Load: func() (bool, error) {
					data, err := os.ReadFile(policy)
					mu.Lock()
					defer mu.Unlock()
					text = string(data)
					return true, err
				},
			}}, func(string, bool, error) {}, slog.New(slog.DiscardHandler))
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			defer running.Wait()
			defer cancel()
			running.Go(func() { w.Run(ctx) })
			running.Go(func() { keepWriting(ctx, t, filepath.Join(dir, "audit.log")) })
			for _, want := range []string{"two", "three"} {
				if err := change(dir, want); err != nil {
					t.Fatal(err)
				}
				if !enginetest.Eventually(func() bool { mu.Lock(); defer mu.Unlock(); return text == want }) {
					t.Fatalf("%q was not seen", want)
				}
			}
		})
	}
}

// swap does what kubelet does: ..data is a link to a directory, and is replaced
// by rename.
func swap(dir, text string) error {
	version := "..version-" + text
	if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, version, "policy.yaml"), []byte(text), 0o600); err != nil {
		return err
	}
	if err := os.Symlink(version, filepath.Join(dir, "..tmp")); err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data"))
}

// keepWriting appends to a file until ctx ends.
func keepWriting(ctx context.Context, t *testing.T, name string) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	for ctx.Err() == nil {
		if _, err := f.WriteString("a record\n"); err != nil {
			t.Error(err)
			return
		}
	}
}
