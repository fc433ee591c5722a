package charts

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestBadValuesAreRefusedWithTheirPlace is what a platform team sees when it
// mistypes: the field by its path, before anything is sent to a cluster.
func TestBadValuesAreRefusedWithTheirPlace(t *testing.T) {
	rule := "policy.rules[0].hosts[0]=a.example,policy.rules[0]."
	for _, c := range []struct{ set, want string }{
		{"polcy.allowlist[0]=a.example", "'polcy' not allowed"},
		{"policy.allowlist[0]=https://a.example", "/policy/allowlist/0"},
		{"policy.allowlist[0]=a.example/path", "/policy/allowlist/0"},
		{"policy.allowlist[0]=a.example:443", "/policy/allowlist/0"},
		{"policy.allowlist[0]=10.0.0.1", "/policy/allowlist/0"},
		{"policy.allowlist[0]=api.*", "/policy/allowlist/0"},
		{"policy.allowlist[0]=ap*.example", "/policy/allowlist/0"},
		{"policy.allowlist[0]=", "/policy/allowlist/0"},
		{"policy.allowlist=a.example", "/policy/allowlist"},
		{"policy.mode=audit", "/policy/mode"},
		{"policy.agents.namespaces[0]=team-*", "/policy/agents/namespaces/0"},
		{"policy.agents.namespaces=null", "policy.agents: says nobody"},
		{"policies.x.rules[0].hosts[0]=a.example", "policies.x.agents: says nobody"},
		{"policies.default.agents.namespaces[0]=x", "policies.default: that is the name"},
		{"policies.a b.agents.namespaces[0]=x", "'a b' not allowed"},
		{"policy.rules[0].name=x", "'hosts'"},
		{rule + "name=allowlist", "/policy/rules/0/name"},
		{rule + "action=hold", "/policy/rules/0/action"},
		{rule + "method=GET", "'method' not allowed"},
		{rule + "methods[0]=get", "/policy/rules/0/methods/0"},
		{rule + "methods[0]=CONNECT", "/policy/rules/0/methods/0"},
		{rule + "paths[0]=v1", "/policy/rules/0/paths/0"},
		{rule + "paths[0]=/**/x", "/policy/rules/0/paths/0"},
		{rule + "paths[0]=/v1?x=1", "/policy/rules/0/paths/0"},
		{rule + "ports[0]=0", "/policy/rules/0/ports/0"},
		{rule + "limits.rate=30", "/policy/rules/0/limits/rate"},
		{rule + "limits.requestBytes=1MB", "/policy/rules/0/limits/requestBytes"},
		{rule + "addresses[0]=10.0.0.1", "/policy/rules/0/addresses/0"},
		{rule + "upstream.spkiPins[0]=sha1/x", "/policy/rules/0/upstream/spkiPins/0"},
		{rule + "headers.set.a:b=x", "'a:b' not allowed"},
		{rule + "websocket=maybe", "/policy/rules/0/websocket"},
		{"control.enforcement=none", "/control/enforcement"},
		{"control.replicas=0", "/control/replicas"},
		{"control.issuer.kind=Issuer", "control.issuer: kind and name belong together"},
		{"engine.denyCIDRs[0]=10.0.0.0", "/engine/denyCIDRs/0"},
		{"engine.denyCIDRs[0]=10.0.0.0/33", "/engine/denyCIDRs/0"},
		{"engine.denyCIDRs[0]=10.0.0.256/8", "/engine/denyCIDRs/0"},
		{"engine.denyCIDRs[0]=fd00::/129", "/engine/denyCIDRs/0"},
		{"audit.sinks[0]=collector:4318", "/audit/sinks/0"},
		{"audit.sinks[0]=kafka://collector:9092", "/audit/sinks/0"},
		{"audit.sinks[0]=otlp://collector:4317", "/audit/sinks/0"},
		{"audit.anchors[0]=otlp://collector:4318", "/audit/anchors/0"},
		{"audit.rotateSize=1Ti", "/audit/rotateSize"},
		{"audit.rotateSize=1Ki", "audit.rotateSize: want 64Ki or more"},
		{"audit.rotateSize=1Gi", "audit.rotateSize: want less than audit.sizeLimit"},
		{"audit.keep=3", "audit.keep: segments go only when"},
		{"gateways[0].namespace=" + namespace, "release's own namespace"},
		{"gateways[0].namespace=x,gateways[1].namespace=x", "gateways: x is there twice"},
		{"gateways[0].namespace=x,gateways[0].minReplicas=9", "maxReplicas is below minReplicas"},
		{"gateways[0].namespace=x,gateways[0].resources.limits.memory=1Gi", "gateways: x: resources.requests.cpu is missing"},
		{"gateways[0].replicas=2,gateways[0].namespace=x", "'replicas' not allowed"},
		{"gateways[0].minReplicas=2", "'namespace'"},
		{"plain.namespaces[0].name=" + namespace, "release's own namespace"},
		{"plain.namespaces[0].name=nobody", "no policy selects an agent of nobody"},
		{"policy=null", "missing property 'policy'"},
		{"policies=null", "missing property 'policies'"},
		{"cert-manager.enabled=true", "helm dependency build"},
	} {
		out, err := render("--set", c.set)
		if err == nil {
			t.Errorf("%s: taken\n%s", c.set, out)
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant %q", c.set, err, c.want)
		}
	}
}

// TestWhatEnginesTakeTheSchemaTakes: strict is not to be narrow.
func TestWhatEnginesTakeTheSchemaTakes(t *testing.T) {
	for _, set := range []string{
		"engine.denyCIDRs={10.0.0.0/8,0.0.0.0/0,192.168.1.255/32,fd00::/8,::/0,::ffff:10.0.0.0/104,2001:db8::1/128}",
		"audit.sinks={otlp://c:4318,otlps://c.example:4318/v1/logs,http://c:8088/records,https://hook.example/x}",
		"audit.anchors={https://notes.example/aegrail,http://10.0.0.1:8088/anchor}",
		"audit.rotateSize=64Ki",
		"audit.rotateSize=2Gi,audit.claim=logs",
	} {
		if _, err := render("--set", set); err != nil {
			t.Errorf("%s: %v", set, err)
		}
	}
}

// TestTheValuesInTheREADMEAreTaken renders the chart with each of its examples.
// One that is indented is a part of a pod, as it is in deploy.
func TestTheValuesInTheREADMEAreTaken(t *testing.T) {
	data, err := os.ReadFile(chart + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(data), "```yaml\n")[1:]
	if len(blocks) < 3 {
		t.Fatalf("%d examples", len(blocks))
	}
	for _, block := range blocks {
		values, _, _ := strings.Cut(block, "```")
		if strings.HasPrefix(values, " ") {
			partOfAPod(t, values)
			continue
		}
		file := filepath.Join(t.TempDir(), "values.yaml")
		if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := render("--values", file); err != nil {
			t.Errorf("%v\n%s", err, values)
		}
	}
}

// partOfAPod wants each line of a part to be in the pod that internal/e2e runs.
func partOfAPod(t *testing.T, part string) {
	t.Helper()
	pod, err := os.ReadFile(filepath.Join(manifests, "gateway-agent.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(part) {
		if !strings.Contains(string(pod), "\n"+line) {
			t.Errorf("%s is not in gateway-agent.yaml", line)
		}
	}
}

// TestTheSchemaAndTheValuesNameTheSameKeys: a value without a schema would be
// refused, a schema without a value is documented nowhere.
func TestTheSchemaAndTheValuesNameTheSameKeys(t *testing.T) {
	var values map[string]any
	data, err := os.ReadFile(chart + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, &values); err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Definitions map[string]node
		node
	}
	if data, err = os.ReadFile(chart + "/values.schema.json"); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &schema.node); err != nil {
		t.Fatal(err)
	}
	var walk func(at string, values map[string]any, n node)
	walk = func(at string, values map[string]any, n node) {
		if name, ok := strings.CutPrefix(n.Ref, "#/definitions/"); ok {
			n = schema.Definitions[name]
		}
		if len(n.Properties) == 0 {
			return
		}
		if string(n.Additional) != "false" && at != ".cert-manager" {
			t.Errorf("%s takes keys that nobody knows", at)
		}
		for _, key := range slices.Sorted(maps.Keys(n.Properties)) {
			value, ok := values[key]
			if !ok && at+"."+key != ".global" && at != ".engine.resources" && at != ".control.resources" {
				t.Errorf("%s.%s is in the schema and has no value", at, key)
			}
			if inner, ok := value.(map[string]any); ok {
				walk(at+"."+key, inner, n.Properties[key])
			}
		}
		for key := range values {
			if _, ok := n.Properties[key]; !ok && at != ".cert-manager" {
				t.Errorf("%s.%s has a value and is not in the schema", at, key)
			}
		}
	}
	walk("", values, schema.node)
}

// node is what the test reads of a schema.
type node struct {
	Ref        string          `json:"$ref"`
	Properties map[string]node `json:"properties"`
	Additional json.RawMessage `json:"additionalProperties"`
}
