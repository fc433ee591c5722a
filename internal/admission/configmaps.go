package admission

import (
	"context"
	"fmt"
	"maps"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	kubejson "k8s.io/apimachinery/pkg/util/json"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/inject"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// validatePolicy compiles a ConfigMap's policies, all of its keys together, as control will.
func (o *Options) validatePolicy(ctx context.Context, req *admissionv1.AdmissionRequest) (verdict, error) {
	if !is(req, "configmaps", "", admissionv1.Create) && !is(req, "configmaps", "", admissionv1.Update) {
		return verdict{}, notUnderstood(req)
	}
	cm := new(corev1.ConfigMap)
	if err := kubejson.Unmarshal(req.Object.Raw, cm); err != nil {
		return verdict{}, fmt.Errorf("reading the ConfigMap: %w", err)
	}
	if cm.Labels[inject.LabelPolicy] != "true" {
		// It had the label and loses it: what control serves is mounted by name and goes on to be.
		return verdict{}, refusef("metadata.labels[%s]: the ConfigMap holds policy, and without the label nobody checks it; set it to \"true\"", inject.LabelPolicy)
	}
	if len(cm.BinaryData) > 0 {
		return verdict{}, refusef("binaryData: policy is text; put it under data")
	}
	var docs []v1alpha1.AgentPolicy
	for _, key := range slices.Sorted(maps.Keys(cm.Data)) {
		some, err := v1alpha1.Parse("data["+key+"]", []byte(cm.Data[key]))
		if err != nil {
			return verdict{}, refusal{err}
		}
		if err := ctx.Err(); err != nil {
			return verdict{}, fmt.Errorf("reading the policies: %w", err)
		}
		docs = append(docs, some...)
	}
	_, warnings, err := policy.Compile(docs, policy.Options{})
	if err != nil {
		return verdict{}, refusal{err}
	}
	var v verdict
	for _, w := range warnings {
		v.warnings = append(v.warnings, w.String())
	}
	return v, nil
}

// cleaners remove what is in a namespace that goes.
func cleaners() []string {
	return []string{"system:serviceaccount:kube-system:namespace-controller", "system:serviceaccount:kube-system:generic-garbage-collector"}
}

// validateBundle lets nobody but control write a bundle: who can decides whom the agents of the namespace and their engines trust,
// and to edit ConfigMaps there is an ordinary right.
func (o *Options) validateBundle(_ context.Context, req *admissionv1.AdmissionRequest) (verdict, error) {
	isDelete := is(req, "configmaps", "", admissionv1.Delete)
	if !isDelete && !is(req, "configmaps", "", admissionv1.Create) && !is(req, "configmaps", "", admissionv1.Update) {
		return verdict{}, notUnderstood(req)
	}
	user := req.UserInfo.Username
	if slices.Contains(o.Writers, user) || isDelete && slices.Contains(cleaners(), user) {
		return verdict{}, nil
	}
	return verdict{}, refusef("ConfigMap %s says whom agents and engines trust, and aegrail-control alone writes it; %s may not", inject.BundleConfigMap, user)
}
