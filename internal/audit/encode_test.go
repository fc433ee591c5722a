package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func encode(r *Record, facts *engineFacts) []byte {
	e := encoder{session: "sess_test_1", identity: "engine", hash: sha256.New()}
	var c chainState
	return e.appendRecord(nil, &c, r, facts, newClock().at, 0)
}

func decoded(t *testing.T, r *Record) Entry {
	t.Helper()
	var l line
	b := encode(r, nil)
	b = b[:len(b)-1]
	if err := l.parse(b); err != nil {
		t.Fatalf("%s\n%v", b, err)
	}
	var e Entry
	e.decode(b, &l)
	return e
}

func TestStringsAreSpelledAsPythonSpellsThem(t *testing.T) {
	f, err := os.Open("testdata/strings.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for sc := bufio.NewScanner(f); sc.Scan(); n++ {
		var row struct{ Bytes, JSON string }
		if err := json.Unmarshal(sc.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		raw, _ := hex.DecodeString(row.Bytes)
		if got := `"` + string(appendEscaped(nil, raw)) + `"`; got != row.JSON {
			t.Errorf("bytes %s: got %s, Python writes %s", row.Bytes, got, row.JSON)
		}
		if got := `"` + string(appendEscaped(nil, string(raw))) + `"`; got != row.JSON {
			t.Errorf("string %s: got %s, Python writes %s", row.Bytes, got, row.JSON)
		}
		if got := unescape(nil, []byte(row.JSON[1:len(row.JSON)-1]), true); !bytes.Equal(got, raw) {
			t.Errorf("%s reads back as %x", row.JSON, got)
		}
	}
	if n < 20 {
		t.Fatalf("only %d vectors", n)
	}
}

func TestReferenceVectorOfTheDesign(t *testing.T) {
	const hash = "080c3a205943d7529fe0c6d853b0def240217be141936b16e14f6472ef00b799"
	body := `{"agent_identity":"egress-proxy/v1","budget":{},"event":"egress_denied","invoking_user":null,"payload":{"host":"blocked.example","reason":"not_in_allowlist"},"prev_hash":null,"principal":"egress-proxy/v1@sess_test_1","session_id":"sess_test_1","ts":"2026-05-15T09:42:11.123Z"}`
	sum := sha256.Sum256([]byte(body))
	if got := hex.EncodeToString(sum[:]); got != hash {
		t.Fatalf("the vector hashes to %s", got)
	}
	whole := strings.Replace(body, `,"invoking_user"`, `,"event_hash":"`+hash+`","invoking_user"`, 1)
	if err := newFollower().next([]byte(whole)); err != nil {
		t.Fatal(err)
	}

	// The encoder, whose payload has a seq besides.
	e := encoder{session: "sess_test_1", identity: "egress-proxy/v1", hash: sha256.New()}
	var c chainState
	got := e.appendRecord(nil, &c, denial(nil, "not_in_allowlist"), nil, newClock().at, 0)
	want := strings.NewReplacer(`"host":"blocked.example","reason":"not_in_allowlist"`,
		`"host":"evil.example","phase":"decision","reason":"not_in_allowlist","seq":1`).Replace(body)
	sum = sha256.Sum256([]byte(want))
	want = strings.Replace(want, `,"invoking_user"`, `,"event_hash":"`+hex.EncodeToString(sum[:])+`","invoking_user"`, 1)
	if diff := cmp.Diff(want+"\n", string(got)); diff != "" {
		t.Fatal(diff)
	}
}

func everything() *Record {
	long := strings.Repeat("x", 3000)
	return &Record{
		Event: EgressError, Phase: PhaseComplete, ID: 0xfeed,
		Agent:  &Agent{Identity: long, Namespace: "ns", ServiceAccount: "sa", Pod: "pod-1", Claimed: "bot", InvokingUser: "a\xffb"},
		Client: netip.MustParseAddrPort("[fe80::1%eth0]:1"), Kind: "plain",
		Scheme: "https", Host: long, Port: 8443, Method: long, Path: []byte(long), QueryKeys: []string{"a", "b\n"}, SNI: long,
		Rule: "r", Policy: "p", PolicyRevision: "rev", Reason: "upstream_timeout", Detail: long, Observed: true, Attempt: 2,
		StatusCode: 502, RequestBytes: 1, ResponseBytes: 2, RequestSHA256: []byte("aa"), ResponseSHA256: []byte("bb"),
		DigestKeyID: "k1", Truncated: true, Duration: time.Second, Upstream: netip.MustParseAddrPort("203.0.113.9:443"),
		UpstreamProto: "h2", TLSVersion: "1.3", ALPN: "h2", Mitm: true,
		Count: 3, First: newClock().at, Last: newClock().at.Add(time.Second),
	}
}

func TestEveryFieldStandsInItsSortedPlace(t *testing.T) {
	facts := &engineFacts{
		durability: "strict", engine: map[string]string{"version": "1", "b\u00e9": "2", "a": "3"}, resumed: true,
		torn: &tornTail{bytes: 7, file: "audit.torn", sha256: "cc"},
	}
	r := everything()
	e := encoder{session: "sess_test_1", identity: "engine", hash: sha256.New()}
	for _, form := range []PathForm{PathFull, PathPattern, PathHash} {
		r.PathForm, r.PathPattern = form, "/v1/*"
		var c chainState
		b := e.appendRecord(nil, &c, r, facts, newClock().at, -time.Hour)
		if err := newFollower().next(b[:len(b)-1]); err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		if !json.Valid(b) {
			t.Fatalf("not JSON: %s", b)
		}
	}
	got := decoded(t, r)
	if got.PathLen != 3000 || got.Path != "" || got.PathPattern != "" {
		t.Fatalf("path kept as a hash: %+v", got)
	}
	if got.ClockJumpMS != 0 || got.Port != 8443 || got.Detail != r.Detail[:maxDetail] || got.ID != "000000000000feed" ||
		got.Pod != "pod-1" || got.Claimed != "bot" || got.AgentIdentity != "bot" || got.InvokingUser != "a\uFFFDb" ||
		got.QueryKeys[1] != "b\n" || got.Client != "[fe80::1%eth0]:1" || !got.Mitm || !got.Observed || !got.Truncated ||
		got.DurationMS != 1000 || got.Count != 3 || got.Last != "2026-05-15T09:42:12.123Z" {
		t.Fatalf("read back: %+v", got)
	}
}

func TestZeroValuesAreLeftOut(t *testing.T) {
	b := encode(&Record{Event: EgressAllowed, Phase: PhaseDecision, Agent: &Agent{}}, nil)
	if !bytes.Contains(b, []byte(`"payload":{"phase":"decision","seq":1}`)) {
		t.Errorf("decision: %s", b)
	}
	b = encode(&Record{Event: EgressAllowed, Phase: PhaseComplete}, nil)
	if !bytes.Contains(b, []byte(`"payload":{"duration_ms":0,"phase":"complete","request_bytes":0,"response_bytes":0,"seq":1}`)) {
		t.Errorf("completion: %s", b)
	}
	b = encode(&Record{Event: EgressDenied, PathForm: PathHash}, nil)
	if bytes.Contains(b, []byte("path")) {
		t.Errorf("no path: %s", b)
	}
}

func TestWordsOfEventsAndPhases(t *testing.T) {
	for e, want := range map[Event]string{
		NoEvent: "", EngineStart: "engine_start", EngineShutdown: "engine_shutdown", EngineHeartbeat: "engine_heartbeat",
		EgressAllowed: "egress_allowed", EgressDenied: "egress_denied", EgressError: "egress_error", 99: "",
	} {
		if e.String() != want {
			t.Errorf("event %d is %q, want %q", e, e, want)
		}
	}
	if NoPhase.String() != "" || PhaseDecision.String() != "decision" || PhaseComplete.String() != "complete" {
		t.Error("phases")
	}
	if Written.String() != "written" || Strict.String() != "strict" {
		t.Error("durabilities")
	}
}

func TestAgentIdentityIsTheClaimThenTheAccountThenTheFlag(t *testing.T) {
	for _, row := range []struct {
		agent *Agent
		want  string
	}{
		{nil, "engine"},
		{&Agent{}, "engine"},
		{&Agent{Identity: "laptop"}, "laptop"},
		{&Agent{Identity: "laptop", Namespace: "ns", ServiceAccount: "sa"}, "ns/sa"},
		{&Agent{Identity: "laptop", Namespace: "ns", ServiceAccount: "sa", Claimed: "bot"}, "bot"},
	} {
		e := decoded(t, &Record{Event: EgressDenied, Agent: row.agent})
		if e.AgentIdentity != row.want || e.Principal != row.want+"@sess_test_1" {
			t.Errorf("%+v: %s, %s", row.agent, e.AgentIdentity, e.Principal)
		}
	}
}

// hostile is what agents put where names belong.
var hostile = []string{
	"a\nb", "a\r\nb", "\x1b[2Jgone", "\u2028\u2029", "\xff\xfe", "\x00", "a\x7fb", `","event":"egress_allowed`, "\\", "\xed\xa0\x80",
	"😀", "\xc3\x28", strings.Repeat("\xff", 5000),
}

func TestL01HostileBytesStayOnOneLineAndComeBack(t *testing.T) {
	for _, s := range hostile {
		r := &Record{
			Event: EgressDenied, Phase: PhaseDecision, Method: s, Host: s, SNI: s, Path: []byte(s), Detail: s, Reason: s, QueryKeys: []string{s},
			Agent: &Agent{Namespace: s, ServiceAccount: s, Claimed: s, Pod: s, Identity: s, InvokingUser: s},
		}
		b := encode(r, nil)
		if n := bytes.Count(b, []byte("\n")); n != 1 || b[len(b)-1] != '\n' {
			t.Fatalf("%.20q: %d lines", s, n)
		}
		for _, c := range b[:len(b)-1] {
			if c < ' ' || c > '~' {
				t.Fatalf("%.20q: byte %#x in the line", s, c)
			}
		}
		e := decoded(t, r)
		if !strings.HasPrefix(s, e.Path) || len(s) <= maxPath && e.Path != s {
			t.Errorf("path %.20q came back as %.20q", s, e.Path)
		}
		if len(s) < maxMethod && (e.Method != s || e.Host != s || e.SNI != s || e.Detail != s || e.Reason != s || e.Pod != s || e.Claimed != s || e.QueryKeys[0] != s) {
			t.Errorf("%q came back as %+v", s, e)
		}
	}
}

func TestL02LongFieldsAreCutAndKeepLengthAndHash(t *testing.T) {
	path := bytes.Repeat([]byte("/0123456"), 10<<20/8)
	keys := make([]string, 500)
	for i := range keys {
		keys[i] = fmt.Sprint(strings.Repeat("k", 100), i)
	}
	r := decision(1)
	r.Path, r.QueryKeys, r.Rule = path, keys, strings.Repeat("r", 9999)
	e := decoded(t, r)
	sum := sha256.Sum256(path)
	if e.Path != string(path[:maxPath]) || e.PathLen != 10<<20 || e.PathSHA256 != hex.EncodeToString(sum[:]) {
		t.Fatalf("path_len %d, path_sha256 %s", e.PathLen, e.PathSHA256)
	}
	if len(e.QueryKeys) != maxQueryKeys || len(e.QueryKeys[0]) != maxQueryKey || len(e.Rule) != maxWord {
		t.Fatalf("%d keys of %d bytes, rule of %d", len(e.QueryKeys), len(e.QueryKeys[0]), len(e.Rule))
	}
	if b := encode(r, nil); !bytes.Contains(b, []byte(`"query_keys_len":500`)) {
		t.Error("no query_keys_len")
	}
	worst := everything()
	bad := strings.Repeat("\xff", 10<<10)
	worst.Path, worst.Host, worst.SNI, worst.Detail, worst.Method = []byte(bad), bad, bad, bad, bad
	worst.Rule, worst.Policy, worst.PolicyRevision, worst.Reason, worst.Kind, worst.ALPN = bad, bad, bad, bad, bad, bad
	worst.Agent = &Agent{bad, bad, bad, bad, bad, bad}
	worst.QueryKeys = nil
	for range 100 {
		worst.QueryKeys = append(worst.QueryKeys, bad)
	}
	if n := len(encode(worst, nil)); n > 96<<10 {
		t.Errorf("the longest record has %d bytes", n)
	}
}

func TestL02CutsFallBetweenCharacters(t *testing.T) {
	for _, row := range []struct {
		s     string
		limit int
		want  int
	}{
		{"abcdef", 3, 3}, {"aé", 2, 1}, {"a€b", 3, 1}, {"😀😀", 7, 4}, {"\x80\x80\x80\x80\x80\x80", 5, 5}, {"ab", 5, 2},
	} {
		if got := cutAt(row.s, row.limit); got != row.want {
			t.Errorf("%q cut at %d keeps %d, want %d", row.s, row.limit, got, row.want)
		}
	}
}

func TestL11SecretsHaveNoPlace(t *testing.T) {
	r := decision(1)
	r.Path = []byte("/v1/x?token=SECRET")
	r.Host = "user:SECRET@api.example.com"
	b := encode(r, nil)
	r.Path = []byte("/v1/x#SECRET")
	b = append(b, encode(r, nil)...)
	r.PathForm, r.PathPattern, r.Path = PathPattern, "/v1/*", []byte("/v1/SECRET")
	b = append(b, encode(r, nil)...)
	r.PathForm = PathHash
	b = append(b, encode(r, nil)...)
	if bytes.Contains(b, []byte("SECRET")) {
		t.Fatalf("a secret is in the log: %s", b)
	}
	if !bytes.Contains(b, []byte(`"host":"api.example.com"`)) || !bytes.Contains(b, []byte(`"path":"/v1/x"`)) {
		t.Fatalf("more than the secret was cut: %s", b)
	}
}

func TestOnlyBytesThatStandForThemselvesAreVerbatim(t *testing.T) {
	for n := range 20 {
		for at := range n {
			for c := range 256 {
				b := bytes.Repeat([]byte("~"), n)
				b[at] = byte(c)
				want := string(appendEscaped(nil, b)) == string(b)
				if verbatim(b) != want {
					t.Fatalf("byte %#x at %d of %d: %v", c, at, n, !want)
				}
			}
		}
	}
}

func TestAStampIsTheTimeInEverySecond(t *testing.T) {
	var s stamp
	for _, at := range []time.Time{
		newClock().at, newClock().at.Add(876 * time.Millisecond), newClock().at.Add(877 * time.Millisecond), newClock().at,
		{}, time.Unix(0, 0), time.Unix(-1, 999e6), time.Date(0, 12, 31, 23, 59, 59, 5e8, time.UTC),
		time.Date(9999, 12, 31, 23, 59, 59, 5e8, time.UTC), time.Date(12026, 1, 1, 0, 0, 0, 5e6, time.UTC),
		time.Date(9999, 12, 31, 23, 59, 59, 1e6, time.FixedZone("", -3600)),
	} {
		for range 2 {
			if got, want := string(s.append(nil, at)), string(appendTime(nil, at)); got != want {
				t.Errorf("%v: %s, want %s", at, got, want)
			}
		}
	}
}

func TestYearsThatFourDigitsCannotHold(t *testing.T) {
	for at, want := range map[time.Time]string{
		time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC): "9999-12-31T23:59:59.999Z",
		time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC):    "0001-01-01T00:00:00.000Z",
	} {
		if got := string(appendTime(nil, at)); got != want {
			t.Errorf("%v: %s", at, got)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	e := encoder{session: "sess_test_1", identity: "engine", hash: sha256.New()}
	var c chainState
	r, buf := completion(7), make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = e.appendRecord(buf[:0], &c, r, nil, newClock().at, 0)
	}
	b.SetBytes(int64(len(buf)))
}

func TestTimesAreThoseOfTheLayout(t *testing.T) {
	for _, s := range []string{"2026-05-15T09:42:11.123Z", "0001-02-03T04:05:06.007Z", "9999-12-31T23:59:59.999Z", "2024-02-29T00:00:00.000Z"} {
		at, err := time.Parse(timeLayout, s)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(appendTime(nil, at.In(time.FixedZone("", 3600)))); got != s {
			t.Errorf("%s is written %s", s, got)
		}
	}
}
