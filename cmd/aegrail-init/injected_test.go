//go:build linux

package main

import (
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"testing"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
	"github.com/arpitcoder/aegrail-engine/internal/passage"
)

// What is written into pods is written elsewhere, and read here.
func TestWhatIsInjectedIsUnderstood(t *testing.T) {
	pod, err := inject.Pod(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "agent", Image: "a:1"}}}}, inject.Config{
		Image: "engine:1", Enforcement: inject.Transparent, ControlAddress: "aegrail-control.aegrail-system.svc:8443", CAGeneration: 1, UID: inject.DrawUID,
	})
	if err != nil {
		t.Fatal(err)
	}
	first := pod.Spec.InitContainers[0]
	if first.Name != inject.ContainerInit || first.Args[0] != "serve" || len(first.Env) != 1 || first.Env[0].ValueFrom.FieldRef.FieldPath != "status.podIPs" {
		t.Fatalf("%+v", first)
	}
	o, flags := new(options), pflag.NewFlagSet("serve", pflag.ContinueOnError)
	o.define(flags)
	if err := flags.Parse(first.Args[1:]); err != nil {
		t.Fatal(err)
	}
	if err := readEnv(flags, func(name string) string { return map[string]string{first.Env[0].Name: "10.1.2.3,fd00::1"}[name] }); err != nil {
		t.Fatal(err)
	}
	p, err := o.plan()
	if err != nil {
		t.Fatal(err)
	}
	r := p.rules
	if r.Mark != passage.Mark || strconv.Itoa(int(p.engine.EngineUID)) != pod.Annotations[inject.AnnotationEngineUID] {
		t.Errorf("lets out the mark %#x, of sockets of user %d", r.Mark, p.engine.EngineUID)
	}
	if p.engine.Path != inject.PathPassage+"/"+inject.PassageSocket || len(first.VolumeMounts) != 1 || first.VolumeMounts[0].MountPath != inject.PathPassage {
		t.Errorf("is asked at %s, with %v mounted", p.engine.Path, first.VolumeMounts)
	}
	// What it keeps there is what the engine has for its own.
	for _, file := range nameFiles() {
		want := corev1.VolumeMount{Name: first.VolumeMounts[0].Name, MountPath: file.path, SubPath: filepath.Base(file.path), ReadOnly: true}
		has := func(m corev1.VolumeMount) bool { return reflect.DeepEqual(m, want) }
		if engine := pod.Spec.InitContainers[1]; !slices.ContainsFunc(engine.VolumeMounts, has) {
			t.Errorf("the engine has %v, and not %v", engine.VolumeMounts, want)
		}
	}
	// It is up when this says so: the same flags as those that it serves with.
	probe := first.StartupProbe.Exec.Command
	if want := append([]string{inject.CommandInit, "check"}, first.Args[1:]...); !slices.Equal(probe, want) {
		t.Errorf("the probe is %q, want %q", probe, want)
	}
	if r.Transparent != inject.PortTransparent || r.DNS != inject.PortDNS || !slices.Equal(r.Protected, []uint16{inject.PortAdmin, inject.PortProxy}) {
		t.Errorf("%d %d %d", r.Transparent, r.DNS, r.Protected)
	}
	if len(r.Free) != 2 || r.Free[0].String() != "10.1.2.3/32" || r.Free[1].String() != "fd00::1/128" {
		t.Errorf("leaves alone %v", r.Free)
	}
}
