package admission

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

// operation is one of a JSON patch (RFC 6902). Add replaces what is there.
type operation struct {
	Op    string `json:"op"` // add or remove
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// operations are a patch under construction.
//
// It is written here and not found by comparing two documents: such a comparison turns the first element of a list into the one that
// is put before it, field by field, and a field that only a newer API server knows would change its owner. Here containers and volumes
// are put in and taken out whole, and of the others only what injection sets is named.
type operations []operation

func (o *operations) add(path string, value any) { *o = append(*o, operation{"add", path, value}) }

func (o *operations) remove(path string) { *o = append(*o, operation{Op: "remove", Path: path}) }

// patchOf is the JSON patch that makes after of before, nil if they are the same. Should injection ever change more than is named here, the
// pod that comes of it is refused when it is validated.
func patchOf(before, after *corev1.Pod) ([]byte, error) {
	if equality.Semantic.DeepEqual(before, after) {
		return nil, nil
	}
	var o operations
	o.strings("/metadata/labels", before.Labels, after.Labels)
	o.strings("/metadata/annotations", before.Annotations, after.Annotations)
	o.volumes(before.Spec.Volumes, after.Spec.Volumes)
	o.list("/spec/initContainers", before.Spec.InitContainers, after.Spec.InitContainers)
	o.list("/spec/containers", before.Spec.Containers, after.Spec.Containers)
	o.list("/spec/ephemeralContainers", plain(before), plain(after))
	patch, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("writing the patch: %w", err)
	}
	return patch, nil
}

// plain are the ephemeral containers as containers.
func plain(pod *corev1.Pod) []corev1.Container {
	var out []corev1.Container
	for _, e := range pod.Spec.EphemeralContainers {
		out = append(out, corev1.Container(e.EphemeralContainerCommon))
	}
	return out
}

// strings patches a map of labels or annotations.
func (o *operations) strings(path string, before, after map[string]string) {
	if before == nil {
		if len(after) > 0 {
			o.add(path, after)
		}
		return
	}
	for _, key := range sortedKeys(before, after) {
		was, had := before[key]
		is, has := after[key]
		switch at := path + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key); {
		case had && !has:
			o.remove(at)
		case is != was || !had:
			o.add(at, is)
		}
	}
}

func sortedKeys(maps ...map[string]string) []string {
	var out []string
	for _, m := range maps {
		for key := range m {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// volumes takes out those that are ours and puts them in anew, at the end.
func (o *operations) volumes(before, after []corev1.Volume) {
	if equality.Semantic.DeepEqual(before, after) {
		return
	}
	const path = "/spec/volumes"
	if len(before) == 0 {
		o.add(path, after)
		return
	}
	replace(o, path, before, after, func(v corev1.Volume) bool { return inject.OurVolume(v.Name) })
}

// replace takes the elements of a list that are ours out, and puts them in anew where they belong.
func replace[T any](o *operations, path string, before, after []T, ours func(T) bool) {
	for i, element := range slices.Backward(before) {
		if ours(element) {
			o.remove(fmt.Sprintf("%s/%d", path, i))
		}
	}
	for i, element := range after {
		if ours(element) {
			o.add(fmt.Sprintf("%s/%d", path, i), element)
		}
	}
}

// list takes out containers that are ours and puts them in anew where they belong, and then changes the others, which are the same in the same order.
func (o *operations) list(path string, before, after []corev1.Container) {
	if equality.Semantic.DeepEqual(before, after) {
		return
	}
	if len(before) == 0 {
		o.add(path, after)
		return
	}
	isOurs := func(c corev1.Container) bool { return inject.Ours(c.Name) }
	if !equality.Semantic.DeepEqual(indexed(before, isOurs), indexed(after, isOurs)) {
		replace(o, path, before, after, isOurs)
	}
	others := slices.DeleteFunc(slices.Clone(before), isOurs)
	for i, c := range after {
		if !isOurs(c) {
			o.container(fmt.Sprintf("%s/%d", path, i), others[0], c)
			others = others[1:]
		}
	}
}

// indexed are the elements of list that are picked, by their place.
func indexed(list []corev1.Container, pick func(corev1.Container) bool) map[int]corev1.Container {
	out := map[int]corev1.Container{}
	for i, c := range list {
		if pick(c) {
			out[i] = c
		}
	}
	return out
}

// container changes what injection sets of a container that is not ours.
func (o *operations) container(path string, before, after corev1.Container) {
	if !equality.Semantic.DeepEqual(before.Env, after.Env) {
		o.add(path+"/env", after.Env)
	}
	if len(before.VolumeMounts) == 0 && len(after.VolumeMounts) > 0 {
		o.add(path+"/volumeMounts", after.VolumeMounts)
	} else {
		for _, m := range after.VolumeMounts[len(before.VolumeMounts):] {
			o.add(path+"/volumeMounts/-", m)
		}
	}
	o.context(path+"/securityContext", before.SecurityContext, after.SecurityContext)
}

func (o *operations) context(path string, before, after *corev1.SecurityContext) {
	if before == nil {
		o.add(path, after)
		return
	}
	for _, f := range []struct {
		name    string
		was, is any
	}{
		{"allowPrivilegeEscalation", before.AllowPrivilegeEscalation, after.AllowPrivilegeEscalation},
		{"capabilities", before.Capabilities, after.Capabilities},
		{"runAsUser", before.RunAsUser, after.RunAsUser},
		{"seccompProfile", before.SeccompProfile, after.SeccompProfile},
	} {
		if !equality.Semantic.DeepEqual(f.was, f.is) {
			o.add(path+"/"+f.name, f.is)
		}
	}
}
