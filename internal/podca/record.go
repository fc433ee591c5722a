package podca

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"

	"github.com/arpitcoder/aegrail-engine/internal/link"
)

// Recorder writes down what became of the engines' calls. It does not block and
// may be used from many goroutines.
type Recorder struct {
	own    string // control's namespace, in which gateways are
	events events.EventRecorder
	logger *slog.Logger
	count  func(about About, outcome string)
}

// About is what a call was about.
type About string

// What an answer is counted as.
const (
	// Engine: a policy or an authority, which engines ask for as far as they may have it.
	Engine About = "engine"

	// Caller: whose a connection to a gateway is, which whoever reaches the
	// gateway has it ask. A refusal is of the caller, and not of the gateway.
	Caller About = "caller"
)

// NewRecorder makes a Recorder. Own is control's namespace. Count is told of each
// answer to an engine: "signed", "again" for a chain that was handed out before,
// "unavailable", or the reason of a refusal, of which there are few; and of each
// about a gateway's caller: "known", "unavailable" or the reason of a refusal.
func NewRecorder(own string, e events.EventRecorder, logger *slog.Logger, count func(about About, outcome string)) (*Recorder, error) {
	if own == "" || e == nil || logger == nil || count == nil {
		return nil, errors.New("recording the engines' calls: control's namespace, events, a logger and a counter must be given")
	}
	return &Recorder{own, e, logger, count}, nil
}

// refused is a refusal that concerns a pod which is there, and did not yet
// count as the caller.
type refused struct {
	*link.Refusal
	pod *corev1.Pod
}

func (r *refused) Unwrap() error { return r.Refusal }

func about(pod *corev1.Pod, kind link.Kind, reason, format string, args ...any) error {
	return &refused{link.Refuse(kind, reason, format, args...), pod}
}

// Refused is for link.ServerOptions.
func (r *Recorder) Refused(call link.Refused) {
	outcome, text, level := "unavailable", call.Err.Error(), slog.LevelError
	var refusal *link.Refusal
	if errors.As(call.Err, &refusal) {
		outcome, text, level = refusal.Reason, refusal.Text, slog.LevelWarn
	}
	pod := r.podReference(call)
	about, event := Engine, "EngineRefused"
	if call.Call == "Review" && call.Pod.Gateway { // else somebody tries tokens
		about, event = Caller, "CallerRefused"
	}
	r.count(about, outcome)
	logger := r.logger
	if call.Pod.Gateway {
		logger = logger.With("gateway", call.Pod.Name, "gateway_for", call.Pod.Namespace)
	}
	logger.Log(context.Background(), level, "an engine's call was refused", "call", call.Call, "reason", outcome, "detail", text,
		"peer", call.Peer, "namespace", pod.Namespace, "pod", pod.Name, "uid", pod.UID, "service_account", pod.Spec.ServiceAccountName)
	if pod.Name != "" && refusal != nil {
		r.events.Eventf(pod, nil, corev1.EventTypeWarning, event, call.Call, "%s", refusal.Error())
	}
}

// podReference is whose call it was, as far as that is known.
func (r *Recorder) podReference(call link.Refused) *corev1.Pod {
	var named *refused
	if errors.As(call.Err, &named) {
		return named.pod
	}
	pod := &corev1.Pod{}
	pod.Namespace, pod.Name, pod.UID = call.Pod.Namespace, call.Pod.Name, types.UID(call.Pod.UID)
	pod.Spec.ServiceAccountName = call.Pod.ServiceAccount
	if call.Pod.Gateway {
		pod.Namespace = r.own
	}
	return pod
}

// reviewed records whose a connection to a gateway is.
func (r *Recorder) reviewed(gateway, caller link.Pod) {
	r.count(Caller, "known")
	r.logger.Debug("a gateway was told whose a connection is", "gateway", gateway.Name, "namespace", caller.Namespace, "pod", caller.Name,
		"uid", caller.UID, "service_account", caller.ServiceAccount)
}

// issued records a chain that is handed out. Again says that it was before.
func (r *Recorder) issued(pod *corev1.Pod, t link.Template, made link.Intermediate, again bool) {
	if again {
		r.count(Engine, "again")
		return
	}
	r.count(Engine, "signed")
	r.logger.Info("issued a certificate authority", "namespace", pod.Namespace, "pod", pod.Name, "uid", pod.UID,
		"renew_after", made.RenewAfter, "unconstrained", t.Unconstrained)
	what := "constrained to the hosts of its policy"
	if t.Unconstrained {
		what = "without name constraints: its policy allows every host, or more than a certificate can name"
	}
	r.events.Eventf(pod, nil, corev1.EventTypeNormal, "PodCAIssued", "SignCA", "%s",
		fmt.Sprintf("The engine has a certificate authority, %s. It is renewed after %s.", what, made.RenewAfter.UTC().Format(time.RFC3339)))
}

// unconstrained says why an authority that was handed out may sign for any name.
func (r *Recorder) unconstrained(pod link.Pod, why string) {
	r.logger.Warn("a certificate authority is without name constraints: what its engine may do is up to the policy alone",
		"namespace", pod.Namespace, "pod", pod.Name, "why", why)
}
