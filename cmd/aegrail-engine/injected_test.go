package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

// What is written into pods is written elsewhere, and read here.
func TestWhatIsInjectedIsUnderstood(t *testing.T) {
	for what, edit := range map[string]func(*inject.Config){
		"transparent": func(*inject.Config) {},
		"advisory":    func(c *inject.Config) { c.Enforcement = inject.Advisory },
		"plain": func(c *inject.Config) {
			c.ControlAddress, c.Plain = "", inject.Plain{CASecret: "ca", PolicyConfigMap: "policy"}
		},
	} {
		c := inject.Config{
			Image: "engine:1", Enforcement: inject.Transparent, ControlAddress: "aegrail-control.aegrail-system.svc:8443", CAGeneration: 1,
			DenyCIDRs: []string{"10.0.0.0/8", "fd00::/8"}, UID: inject.DrawUID,
			// What the engine is given besides must not win over what holds the agent.
			EngineArgs: []string{"--audit-rotate-size=64Mi", "--enforcement=network", "--listen=0.0.0.0:1", "--admin-listen=127.0.0.1:1"},
		}
		edit(&c)
		pod, err := inject.Pod(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "agent", Image: "a:1"}}}}, c)
		if err != nil {
			t.Fatal(err)
		}
		engine := pod.Spec.InitContainers[len(pod.Spec.InitContainers)-1]
		if engine.Name != inject.ContainerEngine || engine.Args[0] != "serve" {
			t.Fatalf("%s: %s %q", what, engine.Name, engine.Args)
		}
		o, command := new(serveOptions), new(cobra.Command)
		o.define(command.Flags())
		if err := command.ParseFlags(engine.Args[1:]); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		s, err := readSettings(command, o, downward(t, engine.Env))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := s.principal(); got.Namespace != "support" || got.ServiceAccount != "bot" || got.Pod != "bot-1" || got.Claimed != "Bot v2" {
			t.Errorf("%s: whose engine it is: %+v", what, got)
		}
		if s.enforcement != string(c.Enforcement) || s.admin != ":15020" || s.auditFile != "/var/log/aegrail/audit.log" || len(s.denyCIDRs) != 2 {
			t.Errorf("%s: %q %q %q %q", what, s.enforcement, s.admin, s.auditFile, s.denyCIDRs)
		}
		listen, redirected, dns := "", "127.0.0.1:15001", "127.0.0.1:15053"
		if c.Enforcement == inject.Advisory {
			listen, redirected, dns = "127.0.0.1:15080", "", ""
		}
		if s.listen != listen || s.transparent != redirected || s.dns != dns {
			t.Errorf("%s: listens on %q %q %q", what, s.listen, s.transparent, s.dns)
		}
		if way := inject.PathPassage + "/" + inject.PassageSocket; (s.passage == way && s.dial() != nil && s.mark() != nil) != (c.Enforcement == inject.Transparent) {
			t.Errorf("%s: has its sockets marked at %q", what, s.passage)
		}
		if isPlain := c.ControlAddress == ""; (s.control == "") != isPlain || (s.caDir == inject.PathKey && s.policy == inject.PathPolicy+"/"+inject.PlainPolicy) != isPlain {
			t.Errorf("%s: policy and authority come from %q %q %q", what, s.control, s.caDir, s.policy)
		}
	}
}

// downward is the environment that kubelet makes of env.
func downward(t *testing.T, env []corev1.EnvVar) func(string) string {
	t.Helper()
	fields := map[string]string{
		"metadata.namespace": "support", "spec.serviceAccountName": "bot", "metadata.name": "bot-1", "metadata.labels['aegrail.io/identity']": "Bot v2",
	}
	values := map[string]string{}
	for _, v := range env {
		values[v.Name] = v.Value
		if v.ValueFrom != nil {
			value, known := fields[v.ValueFrom.FieldRef.FieldPath]
			if !known {
				t.Errorf("%s is the field %s", v.Name, v.ValueFrom.FieldRef.FieldPath)
			}
			values[v.Name] = value
		}
		if strings.HasPrefix(v.Name, envPrefix) && values[v.Name] == "" {
			t.Errorf("%s is empty", v.Name)
		}
	}
	return func(name string) string { return values[name] }
}
