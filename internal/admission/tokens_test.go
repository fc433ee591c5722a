package admission

import (
	"encoding/json"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestOnlyKubeletHasTokensMadeByWhichPodsAreKnown(t *testing.T) {
	allowed := compile(t, AllowToken)
	people, kubelet := []string{"system:masters", "system:authenticated"}, []string{"system:nodes", "system:authenticated"}
	for _, row := range []struct {
		what      string
		audiences []string
		groups    []string
		want      bool
	}{
		{"control's, for somebody", []string{"aegrail-control"}, people, false},
		{"control's among others", []string{"vault", "aegrail-control"}, people, false},
		{"a gateway's, for somebody", []string{"aegrail-gateway"}, people, false},
		{"control's, for nobody we know", []string{"aegrail-control"}, nil, false},
		{"control's, for kubelet", []string{"aegrail-control"}, kubelet, true},
		{"a gateway's, for kubelet", []string{"aegrail-gateway"}, kubelet, true},
		{"another audience's", []string{"vault"}, people, true},
		{"of a name that only begins alike", []string{"aegrail-control-2"}, people, true},
		{"the API server's, by default", nil, people, true},
	} {
		raw, err := json.Marshal(authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: row.audiences}})
		if err != nil {
			t.Fatal(err)
		}
		req := &admissionv1.AdmissionRequest{Operation: admissionv1.Create, SubResource: "token", Object: runtime.RawExtension{Raw: raw}}
		req.UserInfo.Groups = row.groups
		if got := matches(t, allowed, req); got != row.want {
			t.Errorf("%s: allowed = %v", row.what, got)
		}
	}
	bare := &admissionv1.AdmissionRequest{Object: runtime.RawExtension{Raw: []byte(`{"spec":{}}`)}}
	if !matches(t, allowed, bare) {
		t.Error("a token without a word about audiences is refused")
	}
}
