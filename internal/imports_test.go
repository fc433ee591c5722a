// Package internal_test holds the map of README.md in executable form: which
// package may import which, and where each third-party module is allowed.
//
// The source is parsed here, in the test process. A test built on `go list`
// would pass from the test cache after a violation, since the cache does not
// see what another process read.
package internal_test

import (
	"errors"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/arpitcoder/aegrail-engine"

// maxModules is how many third-party modules the engine's packages may import
// directly. A new one is a row in the design with a reason.
const maxModules = 18

// row is what one package may import. A package that has no row fails, and so
// does a row whose package is gone.
type row struct {
	ours    []string // our packages, relative to the module
	modules []string // third-party modules
	tests   []string // what its test files may import besides: packages of ours, or modules
	control bool     // linked by aegrail-control alone, so that its modules are none of the engine's
}

// anyOurs stands for every package of ours.
const anyOurs = "any"

// Modules, by the one or two packages that may import them.
const (
	celGo       = "github.com/google/cel-go"
	cobra       = "github.com/spf13/cobra"
	pflag       = "github.com/spf13/pflag" // cobra's flags
	fsnotify    = "github.com/fsnotify/fsnotify"
	goCmp       = "github.com/google/go-cmp"
	goInternal  = "github.com/rogpeppe/go-internal"
	goleak      = "go.uber.org/goleak"
	lru         = "github.com/hashicorp/golang-lru/v2"
	pkcs12      = "software.sslmate.com/src/go-pkcs12"
	prometheus  = "github.com/prometheus/client_golang"
	promModel   = "github.com/prometheus/client_model" // the type a gathered metric has
	websocket   = "github.com/coder/websocket"
	http2       = "golang.org/x/net/http2" // deprecated in the product; tests frame bytes with it
	miekgDNS    = "github.com/miekg/dns"
	nftables    = "github.com/google/nftables"
	xMod        = "golang.org/x/mod"
	idna        = "golang.org/x/net/idna" // the package, not the module: its http2 is deprecated
	xSys        = "golang.org/x/sys"
	yaml        = "go.yaml.in/yaml/v3"
	otel        = "go.opentelemetry.io/otel/attribute" // the packages, as the modules of OpenTelemetry are nested by name
	otelLog     = "go.opentelemetry.io/otel/log"
	otelSDK     = "go.opentelemetry.io/otel/sdk/resource"
	otelSDKLog  = "go.opentelemetry.io/otel/sdk/log"
	otlpHTTP    = "go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	otlpProto   = "go.opentelemetry.io/proto/otlp" // what a receiver reads, in tests
	grpc        = "google.golang.org/grpc"         // the link to control: streams, deadlines and flow control that are proven
	protobuf    = "google.golang.org/protobuf"     // its messages
	kubeAPI     = "k8s.io/api"
	kubeMachine = "k8s.io/apimachinery"
	kubeClient  = "k8s.io/client-go"
	kubeRuntime = "sigs.k8s.io/controller-runtime" // the way controllers are written
	certManager = "github.com/cert-manager/cert-manager"
	podSecurity = "k8s.io/pod-security-admission"  // what the API server judges pods by
	kubeYAML    = "sigs.k8s.io/yaml"               // Kubernetes objects as YAML, in tests
	applyPatch  = "gopkg.in/evanphx/json-patch.v4" // how the API server applies it, in tests
	logr        = "github.com/go-logr/logr"        // what controller-runtime logs to: slog's handler, wrapped
	policyTypes = "api/policy/v1alpha1"
	engineAPI   = "api/engine/v1"

	harnessNetns = "internal/enginetest/netns"
	harnessRace  = "internal/enginetest/race"
)

// rows is the map. Keys are directories of the module.
func rows() map[string]row {
	return map[string]row{
		// The program: it wires everything and nothing imports it.
		"cmd/aegrail-engine": {ours: []string{anyOurs}, modules: []string{cobra, pflag, xSys}, tests: []string{nftables, kubeAPI}},
		"cmd/aegrail-init":   {ours: []string{"internal/flagenv", "internal/passage", "internal/redirect"}, modules: []string{cobra, pflag}, tests: []string{"internal/intake", "internal/inject", kubeAPI, nftables, xSys}},

		// The public contract and the certificate authority.
		policyTypes: {modules: []string{yaml}},
		engineAPI:   {modules: []string{grpc, protobuf}},
		"certs":     {ours: []string{"internal/bucket"}, modules: []string{lru, pkcs12}},

		// The way of a request, in its order.
		"internal/intake":     {ours: []string{"internal/http1"}, modules: []string{xSys}},
		"internal/identity":   {ours: []string{"internal/intake", "internal/bucket"}},
		"internal/http1":      {},
		"internal/canon":      {ours: []string{"internal/http1", "internal/intake"}, modules: []string{idna}, tests: []string{http2}},
		"internal/policy":     {ours: []string{"internal/canon", "internal/identity", policyTypes}, modules: []string{celGo}, tests: []string{"internal/http1", "internal/intake"}},
		"internal/quota":      {ours: []string{"internal/policy", "internal/identity"}},
		"internal/upstream":   {ours: []string{"internal/http1", "internal/canon", "internal/policy", "internal/audit", "internal/identity"}, modules: []string{xSys}, tests: []string{policyTypes, "certs"}},
		"internal/digest":     {},
		"internal/bucket":     {},
		"internal/checkpoint": {modules: []string{xMod}},
		"internal/audit":      {ours: []string{"internal/checkpoint"}},
		"internal/report":     {ours: []string{"internal/audit", policyTypes}},
		"internal/metrics":    {ours: []string{"internal/audit"}, modules: []string{prometheus}, tests: []string{promModel}},
		"internal/ship": {
			ours: []string{"internal/audit"}, modules: []string{otel, otelLog, otelSDK, otelSDKLog, otlpHTTP},
			tests: []string{"internal/checkpoint", otlpProto, protobuf},
		},
		"internal/link":      {ours: []string{engineAPI, "certs", "internal/bucket"}, modules: []string{grpc, protobuf}},
		"internal/trustenv":  {},
		"internal/watch":     {modules: []string{fsnotify}},
		"internal/flagenv":   {modules: []string{pflag}},
		"internal/passage":   {modules: []string{xSys}},
		"internal/redirect":  {modules: []string{nftables, xSys}},
		"internal/resolver":  {ours: []string{"internal/canon", "internal/policy", "internal/identity", "internal/audit"}, modules: []string{miekgDNS}, tests: []string{policyTypes}},
		"internal/isolation": {ours: []string{"internal/redirect", "internal/intake"}, modules: []string{xSys}, tests: []string{nftables}},
		"internal/doctor":    {ours: []string{"internal/passage", "internal/redirect", "internal/resolver", "internal/trustenv"}, modules: []string{miekgDNS, xSys}},
		"internal/proxy": {
			ours: []string{
				"internal/intake", "internal/identity", "internal/http1", "internal/canon", "internal/policy", "internal/quota",
				"internal/upstream", "internal/digest", "internal/audit", "internal/metrics", "certs",
			},
			tests: []string{policyTypes, websocket, http2},
		},

		// aegrail-control's: what knows Kubernetes.
		"cmd/aegrail-control": {
			ours:    []string{"internal/admission", "internal/flagenv", "internal/inject", "internal/link", "internal/namespaces", "internal/podca", "internal/policy", "internal/watch", policyTypes},
			modules: []string{cobra, pflag, prometheus, kubeAPI, kubeMachine, kubeClient, kubeRuntime, kubeYAML, certManager, logr}, control: true,
		},
		"internal/inject":     {ours: []string{"internal/trustenv"}, modules: []string{kubeAPI, kubeMachine, podSecurity}, tests: []string{kubeYAML}, control: true},
		"internal/namespaces": {ours: []string{"internal/inject", "certs"}, modules: []string{kubeAPI, kubeMachine, kubeClient, kubeRuntime, certManager}, tests: []string{pkcs12}, control: true},
		"internal/podca": {
			ours:    []string{"internal/inject", "internal/policy", "internal/identity", "internal/link", policyTypes, "certs"},
			modules: []string{kubeAPI, kubeMachine, kubeClient, kubeRuntime, certManager}, tests: []string{"internal/canon"}, control: true,
		},
		"internal/admission": {
			ours: []string{"internal/inject", "internal/policy", policyTypes}, modules: []string{kubeAPI, kubeMachine, kubeRuntime},
			tests: []string{kubeYAML, applyPatch, celGo}, control: true,
		},

		// For tests and demonstration only.
		"internal":            {},
		"internal/enginetest": {ours: []string{anyOurs}},
		harnessNetns:          {modules: []string{nftables, xSys}},
		harnessRace:           {},
		"fuzz":                {tests: []string{anyOurs, kubeAPI, kubeMachine, applyPatch, miekgDNS, http2}},
		"deploy/demo":         {ours: []string{anyOurs}},
	}
}

// everyTest is what any test file may import besides its row.
func everyTest() []string {
	return []string{goleak, goInternal, goCmp, "internal/enginetest", harnessNetns, harnessRace}
}

// pure lists the standard packages that a package must not know: what keeps
// policy, canon and checkpoint free of I/O and log, and net/http's readings out of the codec.
func pure() map[string][]string {
	return map[string][]string{
		"internal/policy":     {"net", "net/http", "os", "os/exec", "log", "log/slog", "crypto/tls", "syscall"},
		"internal/canon":      {"os", "os/exec", "log", "log/slog", "syscall"}, // net and tls are in the types of HTTP/2's hooks
		"internal/http1":      {"net/http", "net/textproto", "os", "log", "log/slog", "crypto/tls"},
		"internal/quota":      {"net", "net/http", "os", "log", "log/slog"},
		"internal/checkpoint": {"net", "net/http", "os", "log", "log/slog", "syscall"},
		"internal/inject":     {"net/http", "os", "os/exec", "log", "log/slog", "time", "syscall"},
	}
}

func TestEveryImportIsOnTheMap(t *testing.T) {
	table, seen, modules := rows(), map[string]bool{}, map[string]bool{}
	for _, f := range sources(t, "..") {
		dir := path.Dir(f.name)
		seen[dir] = true
		r, ok := table[dir]
		if !ok {
			t.Errorf("%s: package %s is not on the map; add a row and a sentence to internal/README.md", f.name, dir)
			continue
		}
		for _, imp := range f.imports {
			switch {
			case slices.Contains(pure()[dir], imp) && !f.test:
				t.Errorf("%s imports %q: the package must not know it", f.name, imp)
			case !allowed(r, dir, imp, f.test):
				t.Errorf("%s imports %q: not allowed by the row of %s", f.name, imp, dir)
			case thirdParty(imp) && !f.test && dir != harnessNetns && !r.control:
				modules[rowOf(moduleOf(imp, r.modules))] = true
			}
		}
	}
	for dir := range table {
		if !seen[dir] {
			t.Errorf("the map has a row for %s, which has no Go files", dir)
		}
	}
	if len(modules) > maxModules {
		t.Errorf("the engine imports %d modules directly, at most %d are allowed", len(modules), maxModules)
	}
}

// TestTheEngineLinksNoKubernetes walks from each program along what its packages
// import: a row alone would not see what is reached through another.
func TestTheEngineLinksNoKubernetes(t *testing.T) {
	imports := map[string][]string{} // :: package → what it imports
	for _, f := range sources(t, "..") {
		if dir := path.Dir(f.name); !f.test {
			imports[dir] = append(imports[dir], f.imports...)
		}
	}
	for _, program := range []string{"cmd/aegrail-engine", "cmd/aegrail-init"} {
		if len(imports[program]) == 0 {
			t.Errorf("%s imports nothing; has it moved?", program)
		}
		if way := wayTo(imports, program, isKubernetes); way != nil {
			t.Errorf("%s links Kubernetes: %s", program, strings.Join(way, " -> "))
		}
	}
	if wayTo(imports, "internal/podca", isKubernetes) == nil {
		t.Error("internal/podca is not seen to import Kubernetes, so nothing is")
	}
	if wayTo(map[string][]string{"a": {module + "/b"}, "b": {"k8s.io/api/core/v1"}}, "a", isKubernetes) == nil {
		t.Error("what is reached through another package is not seen")
	}
}

func isKubernetes(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return first == "k8s.io" || first == "sigs.k8s.io" || strings.HasPrefix(imp, certManager)
}

// wayTo returns the packages from one to the first that imports what is looked
// for; nil if there is none.
func wayTo(imports map[string][]string, from string, wanted func(string) bool) []string {
	seen := map[string]bool{}
	var walk func(dir string) []string
	walk = func(dir string) []string {
		seen[dir] = true
		for _, imp := range imports[dir] {
			if wanted(imp) {
				return []string{dir, imp}
			}
			ours, local := strings.CutPrefix(imp, module+"/")
			if !local || seen[ours] {
				continue
			}
			if way := walk(ours); way != nil {
				return append([]string{dir}, way...)
			}
		}
		return nil
	}
	return walk(from)
}

// allowed reports whether a file of package dir, whose row is r, may import imp.
func allowed(r row, dir, imp string, test bool) bool {
	ours, local := strings.CutPrefix(imp, module+"/")
	switch {
	case local && strings.HasPrefix(ours, "cmd/"):
		return false
	case local && strings.HasPrefix(ours, "internal/enginetest") && !test:
		return false // the harness is for tests; it holds keys and skips safeguards
	case local && rows()[ours].control && !r.control && !test:
		return false // the engine links no Kubernetes library
	case local && (slices.Contains(r.ours, anyOurs) || slices.Contains(r.ours, ours) || ours == dir && test):
		return true
	case !local && !thirdParty(imp):
		return true
	case !local && moduleOf(imp, r.modules) != "":
		return true
	case !test:
		return false
	}
	extra := append(everyTest(), r.tests...)
	if local {
		return slices.Contains(extra, anyOurs) || slices.Contains(extra, ours)
	}
	return moduleOf(imp, extra) != ""
}

// rowOf returns what module counts as: one SDK that is released as several
// modules is one row of the design's table.
func rowOf(module string) string {
	if strings.HasPrefix(module, "go.opentelemetry.io/") {
		return "go.opentelemetry.io"
	}
	return module
}

// thirdParty reports whether imp is neither ours nor the standard library's,
// whose paths have no dot in their first element.
func thirdParty(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return strings.Contains(first, ".") && !strings.HasPrefix(imp, module+"/")
}

// moduleOf returns which of modules the package imp belongs to, "" if none.
func moduleOf(imp string, modules []string) string {
	for _, m := range modules {
		if imp == m || strings.HasPrefix(imp, m+"/") {
			return m
		}
	}
	return ""
}

type source struct {
	name    string // slash-separated, relative to the module
	imports []string
	test    bool
}

// sources parses the imports of every Go file of the module at root. Nested
// modules are somebody else's map: bench, attacks and end-to-end tests import
// what the product must not depend on.
func sources(t *testing.T, root string) []source {
	t.Helper()
	var out []source
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			hidden := base != ".." && strings.HasPrefix(base, ".")
			if base == "testdata" || hidden || strings.HasPrefix(base, "_") {
				return filepath.SkipDir
			}
			_, err := os.Stat(filepath.Join(name, "go.mod"))
			if err == nil && name != root {
				return filepath.SkipDir
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		s, err := parse(root, name)
		out = append(out, s)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) == 0 {
		t.Fatalf("no Go files under %s", root)
	}
	return out
}

func parse(root, name string) (source, error) {
	f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
	if err != nil {
		return source{}, err
	}
	rel, err := filepath.Rel(root, name)
	if err != nil {
		return source{}, err
	}
	s := source{name: filepath.ToSlash(rel), test: strings.HasSuffix(name, "_test.go")}
	for _, spec := range f.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return source{}, err
		}
		s.imports = append(s.imports, imp)
	}
	return s, nil
}

// The rules themselves, tried on rows that read as sentences: a map that
// forbids nothing would pass the test above as well.
func TestTheMapForbids(t *testing.T) {
	may := func(dir, imp string) bool { return allowed(rows()[dir], dir, imp, false) }
	mayTest := func(dir, imp string) bool { return allowed(rows()[dir], dir, imp, true) }
	ours := func(p string) string { return module + "/" + p }
	for _, c := range []struct {
		what string
		got  bool
		want bool
	}{
		{"proxy imports policy", may("internal/proxy", ours("internal/policy")), true},
		{"policy imports audit", may("internal/policy", ours("internal/audit")), false},
		{"http1 imports canon", may("internal/http1", ours("internal/canon")), false},
		{"audit imports anything of ours", may("internal/audit", ours("internal/digest")), false},
		{"aegrail-init links the proxy", may("cmd/aegrail-init", ours("internal/proxy")), false},
		{"anything imports cmd", may("internal/proxy", ours("cmd/aegrail-engine")), false},
		{"the harness in the product", may("cmd/aegrail-engine", ours("internal/enginetest")), false},
		{"the harness in a test", mayTest("internal/proxy", ours("internal/enginetest")), true},
		{"YAML in api/policy", may(policyTypes, yaml), true},
		{"YAML in policy", may("internal/policy", yaml), false},
		{"YAML in a test of policy", mayTest("internal/policy", yaml), false},
		{"CEL below policy", may("internal/policy", celGo+"/cel"), true},
		{"a module whose name only begins alike", may("certs", lru+"x"), false},
		{"the deprecated HTTP/2", may("internal/upstream", "golang.org/x/net/http2"), false},
		{"the standard library", may("internal/http1", "bytes"), true},
		{"OpenTelemetry beside the log", may("internal/audit", otelSDKLog), false},
		{"what ships the log using the agents' way out", may("internal/ship", ours("internal/upstream")), false},
		{"gRPC in the link", may("internal/link", grpc+"/credentials"), true},
		{"gRPC in the way of a request", may("internal/proxy", grpc), false},
		{"the link in the way of a request", may("internal/proxy", ours("internal/link")), false},
		{"what knows Kubernetes in the engine", may("cmd/aegrail-engine", ours("internal/inject")), false},
		{"what knows Kubernetes in control", may("cmd/aegrail-control", ours("internal/inject")), true},
		{"Kubernetes in the engine", may("cmd/aegrail-engine", kubeAPI+"/core/v1"), false},
		{"the log in what is injected", may("internal/inject", ours("internal/audit")), false},
		{"who signs for pods using the agents' way out", may("internal/podca", ours("internal/upstream")), false},
		{"leak checks in a test", mayTest("internal/audit", goleak), true},
		{"leak checks in the product", may("internal/audit", goleak), false},
	} {
		if c.got != c.want {
			t.Errorf("%s: allowed = %v, want %v", c.what, c.got, c.want)
		}
	}
}
