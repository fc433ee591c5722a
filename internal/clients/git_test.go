package clients

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// git runs git without the engine, to prepare and to look.
func (s *stage) git(args ...string) string {
	s.t.Helper()
	line := []string{
		"git", "-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main", "-c", "safe.directory=*", "-c", "commit.gpgsign=false",
	}
	return strings.TrimSpace(s.run(append(line, args...)...).ok().stdout)
}

// repositories makes those that git.test serves: project with a few MiB,
// open, which may be pushed to, and secret.
func (s *stage) repositories() (head string) {
	s.t.Helper()
	work := s.file("work")
	s.git("init", "-q", work)
	s.write("work/README", []byte("a project\n"))
	s.write("work/data.bin", big()[:3<<20])
	s.git("-C", work, "add", ".")
	s.git("-C", work, "commit", "-qm", "first")
	s.write("work/README", []byte("a project, changed\n"))
	s.git("-C", work, "commit", "-qam", "second")
	for _, name := range []string{"project.git", "open.git", "secret.git"} {
		bare := filepath.Join(suite.origins.GitRoot, name)
		if err := os.RemoveAll(bare); err != nil {
			s.t.Fatal(err)
		}
		s.git("clone", "-q", "--bare", work, bare)
	}
	return s.git("-C", work, "rev-parse", "HEAD")
}

func TestGit(t *testing.T) {
	s := newStage(t)
	head := s.repositories()

	s.exec("git", "clone", "-q", "https://git.test/project.git", "clone").ok()
	if got := s.git("-C", s.file("clone"), "rev-parse", "HEAD"); got != head {
		t.Errorf("the clone is at %s, want %s", got, head)
	}
	if got, err := os.ReadFile(s.file("clone/data.bin")); err != nil || !bytes.Equal(got, big()[:3<<20]) {
		t.Errorf("the clone's data.bin is not the original: %v", err)
	}
	s.exec("git", "-C", "clone", "fetch", "-q").ok()
	s.exec("git", "clone", "-q", "--depth", "1", "https://git.test/project.git", "shallow").ok()
	if got := s.git("-C", s.file("shallow"), "rev-list", "--count", "HEAD"); got != "1" {
		t.Errorf("the shallow clone has %s commits, want 1", got)
	}

	// More than http.postBuffer, so that git probes and then sends chunks.
	s.exec("git", "clone", "-q", "https://git.test/open.git", "open").ok()
	s.write("open/more.bin", big()[3<<20:6<<20])
	s.git("-C", s.file("open"), "add", ".")
	s.git("-C", s.file("open"), "commit", "-qm", "third")
	s.exec("git", "-C", "open", "push", "-q", "origin", "HEAD:main").ok()
	want := s.git("-C", s.file("open"), "rev-parse", "HEAD")
	if got := s.git("-C", filepath.Join(suite.origins.GitRoot, "open.git"), "rev-parse", "main"); got != want {
		t.Errorf("the origin is at %s after the push, want %s", got, want)
	}

	denied := s.exec("git", "clone", "-q", "https://git.test/secret.git", "secret")
	if denied.code == 0 {
		t.Errorf("a denied clone: %s", denied.all())
	}
	// git shows the status alone; the reason is what exec says beside it.
	denied.stderrHas("https://git.test/secret.git", "403")
	denied.engineHas("denied GET https://git.test/secret.git/info/refs", "path_not_allowed")

	push := s.exec("git", "-C", "clone", "push", "-q", "origin", "HEAD:refs/heads/new")
	if push.code == 0 {
		t.Errorf("a denied push: %s", push.all())
	}
	push.stderrHas("403")
	push.engineHas("denied POST https://git.test/project.git/git-receive-pack", "path_not_allowed")

	host := s.exec("git", "clone", "-q", "https://exfil.test/x.git", "x")
	if host.code == 0 {
		t.Errorf("a denied host: %s", host.all())
	}
	host.stderrHas("CONNECT tunnel failed, response 403")
	host.engineHas("denied CONNECT exfil.test", "not_in_allowlist")
	s.gitLog()
}

// gitLog checks the log of TestGit. How many requests a fetch makes is git's
// business; what they are is in the policy.
func (s *stage) gitLog() {
	s.t.Helper()
	logged, allowed := s.logged()
	for _, line := range []string{
		"GET https://git.test/project.git/info/refs 200",
		"POST https://git.test/project.git/git-upload-pack 200",
		"GET https://git.test/open.git/info/refs 200",
		"POST https://git.test/open.git/git-upload-pack 200",
		"POST https://git.test/open.git/git-receive-pack 200",
		"denied path_not_allowed GET https://git.test/secret.git/info/refs",
		"denied path_not_allowed POST https://git.test/project.git/git-receive-pack",
		"denied not_in_allowlist CONNECT exfil.test:443",
	} {
		if logged[line] == 0 {
			s.t.Errorf("the log has no %q:\n%s", line, logged)
		}
	}
	for line := range logged {
		if strings.HasPrefix(line, "unfinished ") || strings.HasPrefix(line, "error ") {
			s.t.Errorf("the log has %q", line)
		}
	}
	s.sameSeen(allowed)
}
