package admission

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

func TestAPatchMakesOfOnePodTheOther(t *testing.T) {
	c := options().Config
	c.CAGeneration = 1
	pods := map[string]string{
		"simple":     simple,
		"labels":     "{metadata: {name: p, labels: {a: b, aegrail.io/injected: 'x'}, annotations: {a~b/c: d, aegrail.io/engine-uid: '5'}}, spec: {containers: [{name: a, image: b}]}}",
		"containers": "{metadata: {name: p}, spec: {initContainers: [{name: one, image: i, env: [{name: HTTP_PROXY, value: x}, {name: A, value: b}]}, {name: two, image: j, restartPolicy: Always}], containers: [{name: a, image: b, volumeMounts: [{name: w, mountPath: /w}]}, {name: c, image: d}], volumes: [{name: w, emptyDir: {}}, {name: x, emptyDir: {}}]}}",
		"rights":     "{metadata: {name: p}, spec: {containers: [{name: a, image: b, securityContext: {runAsUser: 5, capabilities: {add: [KILL], drop: [MKNOD]}, seccompProfile: {type: RuntimeDefault}}}, {name: c, image: d, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]}}",
	}
	try := func(what string, before, after *corev1.Pod) {
		t.Helper()
		patch, err := patchOf(before, after)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(before)
		if err != nil {
			t.Fatal(err)
		}
		if patch != nil {
			p, err := jsonpatch.DecodePatch(patch)
			if err != nil {
				t.Fatal(err)
			}
			if raw, err = p.Apply(raw); err != nil {
				t.Fatalf("%s: %v\n%s", what, err, patch)
			}
		}
		got := new(corev1.Pod)
		if err := json.Unmarshal(raw, got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(after, got); diff != "" {
			t.Errorf("%s: the patch makes another pod:\n%s\n%s", what, diff, patch)
		}
	}
	for name, text := range pods {
		before := podOf(t, text)
		after, err := inject.Pod(before, c)
		if err != nil {
			t.Fatal(err)
		}
		try(name, before, after)
		if patch, err := patchOf(after, after.DeepCopy()); patch != nil || err != nil {
			t.Errorf("%s: the same pod is patched: %s, %v", name, patch, err)
		}

		// Again, after another injector has been there, and for another user.
		late := after.DeepCopy()
		late.Spec.InitContainers = slices.Insert(late.Spec.InitContainers, 0, corev1.Container{Name: "late", Image: "l"})
		late.Spec.Volumes = slices.Insert(late.Spec.Volumes, 0, corev1.Volume{Name: "late", VolumeSource: corev1.VolumeSource{EmptyDir: new(corev1.EmptyDirVolumeSource)}})
		late.Spec.Containers = append(late.Spec.Containers, corev1.Container{Name: "more", Image: "m"})
		late.Spec.Containers[0].Env = nil
		other := c
		other.UID = func() (uint32, error) { return inject.FirstUID + 8, nil }
		again, err := inject.Pod(late, other)
		if err != nil {
			t.Fatal(err)
		}
		try(name+" again", late, again)
	}
}
