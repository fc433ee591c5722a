package podca_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/link"
	"github.com/arpitcoder/aegrail-engine/internal/podca"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

const (
	control    = "aegrail-system"
	gatewayUID = "99999999-2222-3333-4444-555555555555"
	callerUID  = "77777777-2222-3333-4444-555555555555"

	// gatewayHost is where callers find the gateway, and gatewayHosts that and the same in full.
	gatewayHost  = "aegrail-gateway-support.aegrail-system.svc"
	gatewayHosts = gatewayHost + "," + gatewayHost + ".cluster.local"
)

// gateway is what control takes the pod of gatewayPod for.
var gateway = link.Pod{Namespace: "support", Name: "gateway-1", UID: gatewayUID, CAGeneration: 3, Gateway: true, Host: gatewayHost}

// gatewayPod is a pod as the chart has it made.
func gatewayPod(edits ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: control, Name: "gateway-1", UID: gatewayUID, Labels: map[string]string{"aegrail.io/gateway-for": "support"}},
		Spec:       corev1.PodSpec{ServiceAccountName: "aegrail-gateway-support", Containers: []corev1.Container{{Name: "gateway"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, edit := range edits {
		edit(pod)
	}
	return pod
}

// gatewayWorld has a gateway that holds the token "gateway's".
func gatewayWorld(t *testing.T, others ...client.Object) *world {
	t.Helper()
	w := newWorld(t, others...)
	w.generation = 3
	w.reviews["gateway's"] = tokenIn(control, podca.Audience, "aegrail-gateway-support", "gateway-1", gatewayUID)
	return w
}

func TestAGatewayIsKnownByAccountAndLabel(t *testing.T) {
	w := gatewayWorld(t, gatewayPod())
	if pod, err := w.signer.Authenticate(t.Context(), "gateway's"); err != nil || pod != gateway {
		t.Errorf("%+v, %v", pod, err)
	}
	w.generationFault = errHoliday
	pod, err := w.signer.Authenticate(t.Context(), "gateway's")
	if unavailable(t, "generation", err); pod != (link.Pod{}) {
		t.Errorf("and yet it is %+v", pod)
	}
}

func TestK08APodThatIsNotExactlyAGatewayIsNone(t *testing.T) {
	token := func(namespace, audience, account, uid string) authenticationv1.TokenReviewStatus {
		return tokenIn(namespace, audience, account, "gateway-1", uid)
	}
	good := token(control, podca.Audience, "aegrail-gateway-support", gatewayUID)
	for _, row := range []struct {
		what   string
		review authenticationv1.TokenReviewStatus
		edit   func(*corev1.Pod)
		kind   link.Kind
		reason string
		event  bool
	}{
		{"a pod of another namespace with account and label", token("support", podca.Audience, "aegrail-gateway-support", gatewayUID),
			func(p *corev1.Pod) { p.Namespace = "support" }, link.Denied, "not_injected", true},
		{"an account for another namespace", token(control, podca.Audience, "aegrail-gateway-billing", gatewayUID),
			func(p *corev1.Pod) { p.Spec.ServiceAccountName = "aegrail-gateway-billing" }, link.Denied, "not_a_gateway", true},
		{"a label for another namespace", good, func(p *corev1.Pod) { p.Labels["aegrail.io/gateway-for"] = "billing" }, link.Denied, "not_a_gateway", true},
		{"no label", good, func(p *corev1.Pod) { p.Labels = nil }, link.Denied, "not_a_gateway", true},
		{"the label alone", token(control, podca.Audience, "aegrail-control", gatewayUID),
			func(p *corev1.Pod) { p.Spec.ServiceAccountName = "aegrail-control" }, link.Denied, "not_a_gateway", true},
		{"an account for nobody", token(control, podca.Audience, "aegrail-gateway-", gatewayUID),
			func(p *corev1.Pod) { p.Spec.ServiceAccountName, p.Labels = "aegrail-gateway-", nil }, link.Denied, "not_a_gateway", true},
		{"a gateway for control's namespace", token(control, podca.Audience, "aegrail-gateway-"+control, gatewayUID),
			func(p *corev1.Pod) {
				p.Spec.ServiceAccountName, p.Labels["aegrail.io/gateway-for"] = "aegrail-gateway-"+control, control
			}, link.Denied, "not_a_gateway", true},
		{"another container", good, func(p *corev1.Pod) { p.Spec.Containers[0].Name = "shell" }, link.Denied, "not_a_gateway", true},
		{"neither account nor label", token(control, podca.Audience, "default", gatewayUID),
			func(p *corev1.Pod) { p.Spec.ServiceAccountName, p.Labels = "", nil }, link.Denied, "not_injected", true},
		{"another account than the token's", good, func(p *corev1.Pod) { p.Spec.ServiceAccountName = "aegrail-gateway-billing" }, link.Denied, "service_account", true},
		{"a token of callers", token(control, podca.GatewayAudience, "aegrail-gateway-support", gatewayUID), nil, link.Unauthenticated, "wrong_audience", false},
		{"a token that is bound to no pod", tokenIn(control, podca.Audience, "aegrail-gateway-support", "", ""), nil, link.Unauthenticated, "not_a_pod", false},
		{"a pod before it", token(control, podca.Audience, "aegrail-gateway-support", "other"), nil, link.Denied, "pod_uid", true},
		{"a pod that has ended", good, func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, link.Denied, "pod_ending", true},
		{"a pod that has ended and is being deleted", good, func(p *corev1.Pod) { deleting(p); ended(p) }, link.Denied, "pod_ending", true},
	} {
		t.Run(row.what, func(t *testing.T) {
			pod := gatewayPod()
			if row.edit != nil {
				row.edit(pod)
			}
			w := gatewayWorld(t, pod)
			w.reviews["t"] = row.review
			got, err := w.signer.Authenticate(t.Context(), "t")
			w.refused(link.Refused{Call: "Policy", Err: err}, row.kind, row.reason, row.event)
			if got != (link.Pod{}) {
				t.Errorf("and yet it is %+v", got)
			}
		})
	}
}

// TestAGatewayThatStopsKnowsItsCallersToTheEnd: for as long as it runs there are
// some, and they have done nothing that they would be refused for.
func TestAGatewayThatStopsKnowsItsCallersToTheEnd(t *testing.T) {
	w := gatewayWorld(t, gatewayPod(deleting), caller("support", "a", "10.0.0.7"))
	pod, err := w.signer.Authenticate(t.Context(), "gateway's")
	if err != nil || pod != gateway {
		t.Fatalf("%+v, %v", pod, err)
	}
	if got, err := w.signer.Review(t.Context(), pod, link.Caller{Address: netip.MustParseAddr("10.0.0.7")}); err != nil || got.Name != "a" {
		t.Errorf("its caller is %+v, %v", got, err)
	}
	_, err = w.signGateway(w.gatewayTemplate("a.example")) // another authority it does not need
	w.refused(link.Refused{Call: "SignCA", Pod: gateway, Err: err}, link.Denied, "pod_ending", true)
}

func deleting(p *corev1.Pod) {
	now := metav1.Now()
	p.DeletionTimestamp, p.Finalizers = &now, []string{"example.com/hold"}
}

func TestAnInjectedPodThatIsNamedLikeAGatewayIsOnePod(t *testing.T) {
	named := injectedPod()
	named.Name, named.UID, named.Spec = "gateway-1", gatewayUID, gatewayPod().Spec
	named.Labels["aegrail.io/gateway-for"] = "support"
	w := gatewayWorld(t, named)
	w.reviews["t"] = tokenOf(podca.Audience, "aegrail-gateway-support", "gateway-1", gatewayUID)
	pod, err := w.signer.Authenticate(t.Context(), "t")
	if err != nil || pod.Gateway || pod.Namespace != "support" || pod.ServiceAccount != "aegrail-gateway-support" || pod.CAGeneration != 1 {
		t.Errorf("%+v, %v", pod, err)
	}
}

// accounts makes the set of policies "agents | what", each of one host list or mode.
func accounts(t *testing.T, policies ...[2]string) *policy.Set {
	t.Helper()
	text := ""
	for i, p := range policies {
		text += "---\napiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: p" + string(rune('a'+i)) + "}\nspec:\n  agents: {" + p[0] + "}\n  " + p[1] + "\n"
	}
	docs, err := v1alpha1.Parse("policy.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	set, _, err := policy.Compile(docs, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestAGatewayGetsThePolicyOfAllAgentsOfItsNamespace(t *testing.T) {
	policies := &podca.Policies{}
	policies.Swap(accounts(t,
		[2]string{"namespaces: [support]", "allowlist: [all.example]"},
		[2]string{"namespaces: [support], serviceAccounts: [bot]", "allowlist: [bot.example]"},
		[2]string{"serviceAccounts: [roaming]", "allowlist: [roaming.example]"},
		[2]string{"namespaces: [billing]", "allowlist: [secret.example]"},
		[2]string{"namespaces: [billing], serviceAccounts: [bot]", "allowlist: ['*']"},
	))
	p, _, err := policies.For(gateway)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := v1alpha1.Parse("control", p.YAML)
	if err != nil || len(docs) != 3 || bytes.Contains(p.YAML, []byte("secret")) {
		t.Fatalf("%v\n%s", err, p.YAML)
	}
	engine, _, err := policy.Compile(docs, policy.Options{})
	if err != nil || engine.Revision() != p.Revision {
		t.Errorf("the engine's revision is %s, control's %s: %v", engine.Revision(), p.Revision, err)
	}
	want, err := podca.NewTemplate(gateway, constraint(t, "all.example,bot.example,roaming.example,"+gatewayHosts))
	if err != nil || !same(p.Template, want) {
		t.Errorf("%+v, want %+v: %v", p.Template, want, err)
	}
	alone, _, err := policies.For(link.Pod{Namespace: "support", ServiceAccount: "bot", UID: gatewayUID})
	if err != nil || alone.Revision == p.Revision || same(alone.Template, p.Template) {
		t.Errorf("a pod of the namespace has the gateway's policy: %v", err)
	}
	none, _, err := policies.For(link.Pod{Namespace: "lab", UID: gatewayUID, Gateway: true})
	if err != nil || bytes.Contains(none.YAML, []byte("support")) || none.Template.None() {
		t.Errorf("of another namespace: %s, %v", none.YAML, err)
	}
}

// TestAGatewaysAuthorityCoversEachOfItsAgents: what one of them alone may do
// leaves no constraint to give.
func TestAGatewaysAuthorityCoversEachOfItsAgents(t *testing.T) {
	everybody := [2]string{"namespaces: [support]", "allowlist: [a.example]"}
	for _, row := range []struct {
		what, why string
		policies  [][2]string
	}{
		{"a host of nobody", "", [][2]string{everybody, {"namespaces: [billing]", "mode: observe"}}},
		{"one account may reach every host", "every host", [][2]string{everybody, {"namespaces: [support], serviceAccounts: [bot]", "allowlist: ['*']"}}},
		{"one account is observed", "observes", [][2]string{{"namespaces: [support], serviceAccounts: [x]", "allowlist: [a.example]"}, {"namespaces: [support], serviceAccounts: [bot]", "mode: observe"}}},
		{"all but one are observed", "observes", [][2]string{{"namespaces: [support]", "mode: observe"}, {"namespaces: [support], serviceAccounts: [bot]", "allowlist: [a.example]"}}},
		{"nobody is observed, since all are held by another policy", "", [][2]string{everybody, {"namespaces: [support], serviceAccounts: [bot]", "mode: observe"}}},
	} {
		c, err := podca.NamespaceConstraints(accounts(t, row.policies...), "support", "")
		switch {
		case err != nil || c.Unconstrained != (row.why != "") || !strings.Contains(c.Why, row.why):
			t.Errorf("%s: %+v, %v", row.what, c, err)
		case row.why == "" && !bytes.Equal(c.DER, constraint(t, "a.example").DER):
			t.Errorf("%s: other hosts than a.example", row.what)
		}
	}
	if c, err := podca.NamespaceConstraints(nil, "support", ""); err != nil || !c.IsZero() {
		t.Errorf("no set: %+v, %v", c, err)
	}
}

// TestAGatewayListensInItsOwnName, which its callers verify by the root that they
// trust for all else; also where its policy allows nothing.
func TestAGatewayListensInItsOwnName(t *testing.T) {
	for what, policy := range map[string][2]string{"nothing is allowed": {"namespaces: [billing]", "allowlist: [b.example]"}, "a.example is": {"namespaces: [support]", "allowlist: [a.example]"}} {
		c, err := podca.NamespaceConstraints(accounts(t, policy), "support", gatewayHost)
		if err != nil {
			t.Fatal(err)
		}
		ca := confine(t, newRoot(t, "support root"), c)
		for name, ok := range map[string]bool{
			gatewayHost: true, gatewayHost + ".cluster.local": true, "a.example": what == "a.example is",
			"aegrail-gateway-billing.aegrail-system.svc": false, "aegrail-control.aegrail-system.svc": false, "aegrail-system.svc": false, "other.example": false,
		} {
			if ca.permits(t, name) != ok {
				t.Errorf("%s: its authority may sign for %s: %v", what, name, !ok)
			}
		}
	}
}

func (w *world) signGateway(tmpl link.Template) (link.Intermediate, error) {
	w.t.Helper()
	return w.signer.Sign(w.t.Context(), gateway, tmpl, newCSR(w.t, newKey(w.t, elliptic.P256()), tmpl))
}

func (w *world) gatewayTemplate(hosts string) link.Template {
	w.t.Helper()
	tmpl, err := podca.NewTemplate(gateway, constraint(w.t, hosts))
	if err != nil {
		w.t.Fatal(err)
	}
	return tmpl
}

func TestAGatewaysPodHasOneLivingAuthorityOfItsNamespace(t *testing.T) {
	w := gatewayWorld(t, gatewayPod())
	tmpl := w.gatewayTemplate("a.example")
	if _, err := w.signGateway(tmpl); err != nil {
		t.Fatal(err)
	}
	var request cmv1.CertificateRequest
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: control, Name: <-w.created}, &request); err != nil || request.Spec.IssuerRef.Name != "aegrail-ca-support-3" {
		t.Errorf("issuer %q, %v", request.Spec.IssuerRef.Name, err)
	}
	if event := <-w.events.Events; !strings.Contains(event, "PodCAIssued") {
		t.Errorf("event %q", event)
	}
	restarted := func(name string) {
		w.editPodOf(control, "gateway-1", func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: name, RestartCount: 1}}
		})
	}
	for _, step := range []func(){func() {}, func() { restarted("aegrail-engine") }} {
		step()
		_, err := w.signGateway(tmpl)
		w.refused(link.Refused{Call: "SignCA", Pod: gateway, Err: err}, link.TooMany, "one_live_ca", true)
	}
	w.pass(time.Hour)
	if n, err := w.signer.Sweep(t.Context()); err != nil || n != 0 {
		t.Errorf("the request of a gateway that runs was swept: %d, %v", n, err)
	}
	restarted("gateway")
	if _, err := w.signGateway(tmpl); err != nil {
		t.Errorf("started anew: %v", err)
	}
	w.editPodOf(control, "gateway-1", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })
	w.pass(time.Hour)
	if n, err := w.signer.Sweep(t.Context()); err != nil || n != 2 {
		t.Errorf("swept %d of a gateway that has ended, %v", n, err)
	}
}

func TestAContainerOfAnAgentThatIsCalledGatewayIsNoEngine(t *testing.T) {
	w := newWorld(t)
	w.mustSign(w.template("a.example"))
	w.editPod(func(p *corev1.Pod) {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "gateway", RestartCount: 1}}
	})
	_, err := w.sign(w.template("a.example"))
	w.refusedSign(err, link.TooMany, "one_live_ca")
}

func TestK08AGatewayThatIsNoneAnyMoreGetsNoAuthority(t *testing.T) {
	w := gatewayWorld(t, gatewayPod())
	tmpl := w.gatewayTemplate("a.example")
	early := gateway
	early.CAGeneration = 0
	_, err := w.signer.Sign(t.Context(), early, tmpl, newCSR(t, newKey(t, elliptic.P256()), tmpl))
	w.refused(link.Refused{Call: "SignCA", Pod: gateway, Err: err}, link.Unavailable, "no_ca", true)
	inOneNamespace := w.pod // a sidecar's pod does not become a gateway either
	inOneNamespace.Gateway = true
	_, err = w.signer.Sign(t.Context(), inOneNamespace, tmpl, newCSR(t, newKey(t, elliptic.P256()), tmpl))
	w.refused(link.Refused{Call: "SignCA", Pod: gateway, Err: err}, link.Denied, "pod_gone", true)
	asOne := link.Pod{Namespace: control, Name: "gateway-1", UID: gatewayUID, ServiceAccount: "aegrail-gateway-support", CAGeneration: 1} // nor a gateway one pod
	_, err = w.signer.Sign(t.Context(), asOne, tmpl, newCSR(t, newKey(t, elliptic.P256()), tmpl))
	w.refused(link.Refused{Call: "SignCA", Pod: asOne, Err: err}, link.Denied, "changed_meanwhile", true)
	w.editPodOf(control, "gateway-1", func(p *corev1.Pod) { delete(p.Labels, "aegrail.io/gateway-for") })
	_, err = w.signGateway(tmpl)
	w.refused(link.Refused{Call: "SignCA", Pod: gateway, Err: err}, link.Denied, "not_a_gateway", true)
	if len(w.created) > 0 {
		t.Errorf("cert-manager was asked: %s", <-w.created)
	}
}

// caller is a pod of a namespace with an address. One UID does for all of them.
func caller(namespace, name, addr string, edits ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: callerUID, Labels: map[string]string{"aegrail.io/identity": "helper"}},
		Spec:       corev1.PodSpec{ServiceAccountName: "bot"},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: addr},
	}
	for _, edit := range edits {
		edit(pod)
	}
	return pod
}

func ended(p *corev1.Pod)     { p.Status.Phase = corev1.PodSucceeded }
func onTheNode(p *corev1.Pod) { p.Spec.HostNetwork = true }

func callers() []client.Object {
	return []client.Object{
		gatewayPod(), caller("support", "a", "10.0.0.7"), caller("support", "six", "fd00::7"), caller("billing", "pay", "10.0.0.8"),
		caller("support", "node", "192.0.2.1", onTheNode), caller("support", "ended", "10.0.0.9", ended), caller("support", "leaving", "10.0.0.10", deleting),
		caller("support", "twin-1", "10.0.0.11"), caller("support", "twin-2", "10.0.0.11"),
		caller("support", "before", "10.0.0.12", ended), caller("support", "after", "10.0.0.12"), caller("billing", "beside", "10.0.0.7"),
		caller("support", "waiting", ""),
	}
}

func TestReviewNamesTheCallersOfAGateway(t *testing.T) {
	w := gatewayWorld(t, callers()...)
	w.reviews["a's"] = tokenOf(podca.GatewayAudience, "bot", "a", callerUID)
	w.reviews["node's"] = tokenOf(podca.GatewayAudience, "bot", "node", callerUID)
	w.reviews["leaving's"] = tokenOf(podca.GatewayAudience, "bot", "leaving", callerUID)
	for what, row := range map[string]struct {
		caller link.Caller
		want   string
	}{
		"by token":                          {link.Caller{Token: "a's"}, "a"},
		"by token, whatever its address":    {link.Caller{Token: "a's", Address: netip.MustParseAddr("10.0.0.11")}, "a"},
		"by token, while it is deleted":     {link.Caller{Token: "leaving's"}, "leaving"},
		"by token, on the node's network":   {link.Caller{Token: "node's"}, "node"},
		"by address":                        {link.Caller{Address: netip.MustParseAddr("10.0.0.7")}, "a"},
		"by address as IPv6 has it":         {link.Caller{Address: netip.MustParseAddr("::ffff:10.0.0.7")}, "a"},
		"by an IPv6 address":                {link.Caller{Address: netip.MustParseAddr("fd00:0::0007")}, "six"},
		"by an address of one that is over": {link.Caller{Address: netip.MustParseAddr("10.0.0.12")}, "after"},
	} {
		got, err := w.signer.Review(t.Context(), gateway, row.caller)
		if want := (link.Pod{Namespace: "support", Name: row.want, UID: callerUID, ServiceAccount: "bot", Claimed: "helper"}); err != nil || got != want {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}

func TestK08ACallerThatIsNotOneLivingPodOfTheNamespaceIsNobody(t *testing.T) {
	const aud = podca.GatewayAudience
	at := func(addr string) link.Caller { return link.Caller{Address: netip.MustParseAddr(addr)} }
	for _, row := range []struct {
		what   string
		caller link.Caller
		review authenticationv1.TokenReviewStatus // of the token "t"
		kind   link.Kind
		reason string
	}{
		{"a token of the engine's audience", link.Caller{Token: "t"}, tokenOf(podca.Audience, "bot", "a", callerUID), link.Unauthenticated, "wrong_audience"},
		{"a token that is not taken", link.Caller{Token: "t"}, authenticationv1.TokenReviewStatus{Error: "expired"}, link.Unauthenticated, "not_authenticated"},
		{"a token that is not taken, from a known address", link.Caller{Token: "t", Address: netip.MustParseAddr("10.0.0.7")}, authenticationv1.TokenReviewStatus{}, link.Unauthenticated, "not_authenticated"},
		{"a token that is bound to no pod", link.Caller{Token: "t"}, tokenOf(aud, "bot", "", ""), link.Unauthenticated, "not_a_pod"},
		{"a token of another namespace", link.Caller{Token: "t"}, tokenIn("billing", aud, "bot", "pay", callerUID), link.Denied, "another_namespace"},
		{"a gateway's token", link.Caller{Token: "t"}, tokenIn(control, aud, "aegrail-gateway-support", "gateway-1", gatewayUID), link.Denied, "another_namespace"},
		{"a token of a pod before it", link.Caller{Token: "t"}, tokenOf(aud, "bot", "a", "other"), link.Denied, "pod_uid"},
		{"a token of a pod that is gone", link.Caller{Token: "t"}, tokenOf(aud, "bot", "gone", callerUID), link.Denied, "pod_gone"},
		{"a token of a pod that has ended", link.Caller{Token: "t"}, tokenOf(aud, "bot", "ended", callerUID), link.Denied, "pod_ending"},
		{"a token of another account", link.Caller{Token: "t"}, tokenOf(aud, "admin", "a", callerUID), link.Denied, "service_account"},
		{"an address of nobody", at("10.9.9.9"), authenticationv1.TokenReviewStatus{}, link.Denied, "unknown_address"},
		{"an address of another namespace's pod", at("10.0.0.8"), authenticationv1.TokenReviewStatus{}, link.Denied, "unknown_address"},
		{"the address of a pod that has ended", at("10.0.0.9"), authenticationv1.TokenReviewStatus{}, link.Denied, "unknown_address"},
		{"the address of a pod that is being deleted", at("10.0.0.10"), authenticationv1.TokenReviewStatus{}, link.Denied, "pod_ending"},
		{"an address of two pods", at("10.0.0.11"), authenticationv1.TokenReviewStatus{}, link.Denied, "ambiguous_address"},
		{"a node's address", at("192.0.2.1"), authenticationv1.TokenReviewStatus{}, link.Denied, "host_network"},
		{"an address of one link", at("fd00::7%eth0"), authenticationv1.TokenReviewStatus{}, link.Invalid, "bad_caller"},
		{"neither token nor address", link.Caller{}, authenticationv1.TokenReviewStatus{}, link.Invalid, "bad_caller"},
	} {
		t.Run(row.what, func(t *testing.T) {
			w := gatewayWorld(t, callers()...)
			w.reviews["t"] = row.review
			got, err := w.signer.Review(t.Context(), gateway, row.caller)
			w.refused(link.Refused{Call: "Review", Pod: gateway, Err: err}, row.kind, row.reason, true)
			if got != (link.Pod{}) {
				t.Errorf("and yet it is %+v", got)
			}
			if !strings.Contains(w.log.String(), "gateway=gateway-1 gateway_for=support") {
				t.Errorf("the log does not say which gateway asked: %s", w.log)
			}
		})
	}
}

func TestK08AReviewIsForGatewaysAlone(t *testing.T) {
	w := gatewayWorld(t, callers()...)
	got, err := w.signer.Review(t.Context(), w.pod, link.Caller{Address: netip.MustParseAddr("10.0.0.7")})
	w.refused(link.Refused{Call: "Review", Pod: w.pod, Err: err}, link.Denied, "not_a_gateway", true)
	if got != (link.Pod{}) {
		t.Errorf("%+v", got)
	}
}

func TestAReviewWithoutTheAPIServerDecidesNothing(t *testing.T) {
	w := gatewayWorld(t, callers()...)
	w.reviews["a's"] = tokenOf(podca.GatewayAudience, "bot", "a", callerUID)
	_, err := w.broken(failing[*corev1.PodList]("list", errHoliday)).Review(t.Context(), gateway, link.Caller{Address: netip.MustParseAddr("10.0.0.7")})
	unavailable(t, "list", err)
	_, err = w.broken(failing[*corev1.Pod]("get", errHoliday)).Review(t.Context(), gateway, link.Caller{Token: "a's"})
	unavailable(t, "get", err)
	_, err = w.broken(failing[*authenticationv1.TokenReview]("create", errHoliday)).Review(t.Context(), gateway, link.Caller{Token: "a's"})
	unavailable(t, "token review", err)
}

// A gateway, its end of the link, control's, and this package together.
func TestAGatewayIsServedOverTheLink(t *testing.T) {
	w, policies := gatewayWorld(t, callers()...), &podca.Policies{}
	w.reviews["a's"] = tokenOf(podca.GatewayAudience, "bot", "a", callerUID)
	policies.Swap(accounts(t, [2]string{"namespaces: [support], serviceAccounts: [bot]", "allowlist: [a.example]"}, [2]string{"namespaces: [support], serviceAccounts: [x]", "allowlist: [b.example]"}))
	begin := serveLink(t, w, policies)
	e, _ := begin(func(o *link.ClientOptions) {
		o.Gateway, o.Token = true, func() (string, error) { return "gateway's", nil }
	})
	if !enginetest.Eventually(func() bool {
		revision, permitted, wrong := e.state()
		return revision != "" && permitted == "a.example b.example aegrail-gateway-support.aegrail-system.svc aegrail-gateway-support.aegrail-system.svc.cluster.local" && wrong == ""
	}) {
		t.Fatalf("not served: %v, %s", e.wrong, w.log)
	}
	for what, row := range map[string]struct{ token, addr, want string }{
		"a token":           {"a's", "10.9.9.9", ""},
		"an address":        {"", "10.0.0.7", ""},
		"a guess":           {"guess", "10.0.0.7", "not_authenticated"},
		"another's address": {"", "10.0.0.8", "unknown_address"},
		"the engine's own":  {"gateway's", "10.0.0.7", "wrong_audience"},
		"an address of two": {"", "10.0.0.11", "ambiguous_address"},
		"a node's":          {"", "192.0.2.1", "host_network"},
	} {
		got, err := e.client.Review(t.Context(), row.token, netip.MustParseAddr(row.addr))
		var r *link.Refusal
		switch {
		case row.want == "" && (err != nil || got.Namespace != "support" || got.Name != "a" || got.ServiceAccount != "bot" || got.Claimed != "helper"):
			t.Errorf("%s: %+v, %v", what, got, err)
		case row.want != "" && (!errors.As(err, &r) || r.Kind != link.Denied || r.Reason != row.want || w.callers(row.want) == 0 || w.count(row.want) > 0):
			t.Errorf("%s: %v, want %s, counted", what, err, row.want)
		}
	}
	if w.callers("known") != 2 {
		t.Errorf("%d callers were counted as known, want 2", w.callers("known"))
	}
	sidecar, _ := begin(func(o *link.ClientOptions) { o.Trusted = []*x509.Certificate{w.root.cert} })
	var r *link.Refusal
	if _, err := sidecar.client.Review(t.Context(), "a's", netip.Addr{}); !errors.As(err, &r) || r.Reason != "not_a_gateway" || w.count("not_a_gateway") != 1 {
		t.Errorf("a sidecar's review: %v", err)
	}
}
