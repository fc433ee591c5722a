package ship

import (
	"strings"
	"testing"
)

func TestTargetsThatCanBe(t *testing.T) {
	for _, c := range []struct {
		parse                   func(string) (Target, error)
		in, kind, name, url, id string
		header                  string
	}{
		{ParseAnchor, "anchor/log.notes", "file", "anchor/log.notes", "", "", ""},
		{ParseAnchor, "https://a.test/log?tenant=1", "http", "https://a.test", "https://a.test/log?tenant=1", "", ""},
		{ParseSink, "https://u:p%40ss@w.test/in/x?key=s3cret", "webhook", "https://w.test", "https://w.test/in/x?key=s3cret", "webhook-", "Basic dTpwQHNz"},
		{ParseSink, "http://tok3n@w.test:81/", "webhook", "http://w.test:81", "http://w.test:81/", "webhook-", "Bearer tok3n"},
		{ParseSink, "otlp://c.test", "otlp", "http://c.test:4318", "http://c.test:4318/v1/logs", "otlp-", ""},
		{ParseSink, "otlp://[::1]:4318/", "otlp", "http://[::1]:4318", "http://[::1]:4318/v1/logs", "otlp-", ""},
		{ParseSink, "otlps://c.test:443/tenant/v1/logs", "otlp", "https://c.test:443", "https://c.test:443/tenant/v1/logs", "otlp-", ""},
	} {
		got, err := c.parse(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if string(got.Kind()) != c.kind || got.String() != c.name || got.kind != File && got.url.String() != c.url || got.header != c.header {
			t.Errorf("%s: %q, %q, %q, %q", c.in, got.Kind(), got.String(), got.url.String(), got.header)
		}
		if id := got.id(); c.id != "" && (!strings.HasPrefix(id, c.id) || len(id) != len(c.id)+8) {
			t.Errorf("%s is called %s", c.in, id)
		}
	}
	// A password or a query that changes does not make another sink of it; an address does.
	same := func(a, b string) bool {
		x, y := sinkAt(t, a), sinkAt(t, b)
		return x.id() == y.id()
	}
	if !same("https://a:b@w.test/x?k=1", "https://w.test/x?k=2") || same("https://w.test/x", "https://w.test/y") || same("otlp://w.test", "http://w.test:4318/v1/logs") {
		t.Error("positions are mixed up")
	}
}

func TestTargetsThatCannotBeSayWhatIsWanted(t *testing.T) {
	const secret = "hunter2"
	for _, c := range []struct {
		parse    func(string) (Target, error)
		in, want string
	}{
		{ParseAnchor, "", "want a FILE"},
		{ParseAnchor, "dir/", "want a FILE"},
		{ParseAnchor, "ftp://u:hunter2@a.test/x", "no scheme of an anchor"},
		{ParseAnchor, "https://u:hunter2@/x", "want a URL like"},
		{ParseAnchor, "https://u:hunter2@a.test/%zz", "want a URL like"},
		{ParseSink, "audit.out", "want a URL like"},
		{ParseSink, "kafka://hunter2@k.test", "no scheme of a sink"},
		{ParseSink, "https://u:hunter2@a.test/#frag", "want a URL like"},
		{ParseSink, "https:opaque", "want a URL like"},
		{ParseSink, "https://u:hunter2@a.test:99999/", "port from 1 to 65535"},
		{ParseSink, "https://u:hunter2@a.test:0/", "port from 1 to 65535"},
		{ParseSink, "https://u:hunter2@a.test:/", "port from 1 to 65535"},
		{ParseSink, "https://hunter2%0a@a.test/", "no header can carry"},
		{ParseSink, "otlp://hunter2@c.test:4317", "use port 4318"},
		{ParseSink, "otlp://c.test:4318/v1/logs?k=hunter2", "no query"},
	} {
		_, err := c.parse(c.in)
		wantErr(t, err, c.want)
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error tells the password: %v", c.in, err)
		}
	}
}

func TestWhatServersSayIsCleanedAndTellsNoSecret(t *testing.T) {
	target := sinkAt(t, "https://u:hunter2@w.test/?key=qwerty")
	got := target.scrub("401\r\n\x1b[2J you sent hunter2, " + target.header + ", ?key=qwerty \xff " + strings.Repeat("x", 1000))
	for _, bad := range []string{"hunter2", "dTpodW50ZXIy", "qwerty", "\n", "\x1b", "\xff"} {
		if strings.Contains(got, bad) {
			t.Errorf("%q is in %q", bad, got)
		}
	}
	if len(got) > maxSaid+len("…") {
		t.Errorf("%d bytes", len(got))
	}
}

func TestCredentialsInClearAreNoticed(t *testing.T) {
	for url, want := range map[string]bool{
		"http://u:p@w.test/": true, "otlp://token@10.0.0.1:4318": true, "http://w.test/": false, "https://u:p@w.test/": false,
		"http://u:p@127.0.0.1:1/": false, "http://u:p@[::1]:1/": false, "http://u:p@localhost/": false,
	} {
		target := sinkAt(t, url)
		if target.inClear() != want {
			t.Errorf("%s: %v", url, !want)
		}
	}
	var log said
	prepare(t, logFile(t), Config{Logger: log.logger(), Sinks: []Target{sinkAt(t, "http://u:hunter2@w.test/")}})
	if !strings.Contains(log.String(), "unencrypted") || strings.Contains(log.String(), "hunter2") {
		t.Error(log.String())
	}
}
