package inject

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write testdata/*.out.yaml anew")

const testUID = 2000123456

// config is what most tests inject.
func config() Config {
	return Config{
		Image: "registry.example/aegrail-engine:1.0.0", Enforcement: Transparent, ControlAddress: "aegrail-control.aegrail-system.svc:8443",
		DenyCIDRs: []string{"10.244.0.0/16", "10.96.0.0/12"}, EngineArgs: []string{"--log-format=json"},
		CAGeneration: 1, UID: func() (uint32, error) { return testUID, nil },
	}
}

func podOf(t testing.TB, text string) *corev1.Pod {
	t.Helper()
	pod := new(corev1.Pod)
	if err := yaml.UnmarshalStrict([]byte(text), pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

func readPod(t testing.TB, name string) *corev1.Pod {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".in.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return podOf(t, string(text))
}

// goldens are the pods of testdata and what is injected into each.
func goldens() map[string]func(*Config) {
	return map[string]func(*Config){
		"simple":   func(*Config) {},
		"rich":     func(*Config) {},
		"job":      func(c *Config) { c.CAGeneration = 3 },
		"advisory": func(c *Config) { c.Enforcement, c.PodSecurity = Advisory, "restricted" },
		"plain": func(c *Config) {
			c.ControlAddress, c.CAGeneration, c.Plain = "", 0, Plain{CASecret: "aegrail-ca", PolicyConfigMap: "aegrail-policy"}
		},
		"claim": func(c *Config) {
			c.Log.Claim, c.InitImage, c.PullPolicy = "audit", "registry.example/aegrail-init:1.0.0", corev1.PullAlways
			c.Resources = corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}}
		},
	}
}

func TestPodsBecome(t *testing.T) {
	files, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(files) != len(goldens()) {
		t.Fatalf("%d pods in testdata, %d are tried, %v", len(files), len(goldens()), err)
	}
	for name, edit := range goldens() {
		t.Run(name, func(t *testing.T) {
			c := config()
			edit(&c)
			in := readPod(t, name)
			before := in.DeepCopy()
			out, err := Pod(in, c)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, in); diff != "" {
				t.Errorf("the pod that was given is changed:\n%s", diff)
			}
			got, err := yaml.Marshal(out)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".out.yaml")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatalf("%v; make it with go test -update", err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("not as in %s (go test -update writes it anew):\n%s", golden, diff)
			}

			again, err := Pod(out, c)
			if diff := cmp.Diff(out, again); diff != "" || err != nil {
				t.Errorf("injected again it changes: %v\n%s", err, diff)
			}
			if err := Check(out, c); err != nil {
				t.Errorf("what Pod returned is refused: %v", err)
			}
		})
	}
}

func TestConfigsThatMakeNoPod(t *testing.T) {
	for want, edit := range map[string]func(*Config){
		"no image":                     func(c *Config) { c.Image = "" },
		`enforcement ""`:               func(c *Config) { c.Enforcement = "" },
		`enforcement "on"`:             func(c *Config) { c.Enforcement = "on" },
		"nothing draws":                func(c *Config) { c.UID = nil },
		"generation 0":                 func(c *Config) { c.CAGeneration = 0 },
		"generation -1":                func(c *Config) { c.CAGeneration = -1 },
		"needs a Secret":               func(c *Config) { c.ControlAddress = "" },
		"give one of them":             func(c *Config) { c.Plain.CASecret = "x" },
		"write HOST:PORT":              func(c *Config) { c.ControlAddress = "aegrail-control" },
		"addresses to deny":            func(c *Config) { c.DenyCIDRs = []string{"10.0.0.0"} },
		"not between":                  func(c *Config) { c.UID = func() (uint32, error) { return 65532, nil } },
		os.ErrDeadlineExceeded.Error(): func(c *Config) { c.UID = func() (uint32, error) { return testUID, os.ErrDeadlineExceeded } },
	} {
		c := config()
		edit(&c)
		out, err := Pod(readPod(t, "simple"), c)
		if out != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestAnEnginesUserIsDrawnFromTheWholeRange(t *testing.T) {
	seen := map[uint32]bool{}
	for range 100 {
		uid, err := DrawUID()
		if err != nil || !engineUID(int64(uid)) {
			t.Fatalf("%d, %v", uid, err)
		}
		seen[uid] = true
	}
	if len(seen) < 90 {
		t.Errorf("100 draws gave %d users", len(seen))
	}
}

func TestAPodCannotBringItsEnginesUser(t *testing.T) {
	c := config()
	out, err := Pod(readPod(t, "simple"), c)
	if err != nil {
		t.Fatal(err)
	}
	c.UID = func() (uint32, error) { return testUID + 1, nil }
	again, err := Pod(out, c)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.Annotations[AnnotationEngineUID]; got != "2000123457" || *again.Spec.InitContainers[1].SecurityContext.RunAsUser != testUID+1 {
		t.Errorf("the engine runs as %s", got)
	}
}
