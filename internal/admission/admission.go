package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubejson "k8s.io/apimachinery/pkg/util/json"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

const (
	// maxReview bounds a question. The API server takes objects of 3 MiB, and an update has two of them.
	maxReview = 8 << 20 // 8 MiB

	// readTimeout bounds its arrival, and decideTimeout the answer: the API server waits 5 s.
	readTimeout   = 4 * time.Second
	decideTimeout = 4 * time.Second

	// maxAtOnce bounds the questions that are decoded and decided at a time, over all paths.
	maxAtOnce = 16
)

// Paths are where the webhooks' configurations point.
const (
	PathMutatePod      = "/mutate-pod"
	PathValidatePod    = "/validate-pod"
	PathValidatePolicy = "/validate-policy"
	PathValidateBundle = "/validate-bundle"
)

// Namespace is what has to be known of a namespace of agents.
type Namespace struct {
	Inject      string // value of the label aegrail.io/inject; empty if it has none
	PodSecurity string // the level that Pod Security enforces by label

	// Bundle says that the namespace has a bundle of CAs, and CAGeneration the newest in it. NotReady is why it has none, as
	// far as that is known.
	Bundle       bool
	CAGeneration int
	NotReady     string
}

// Namespaces looks namespaces up. It is asked at every admission and by many at once, so it answers from memory. A namespace that
// does not exist is an error.
type Namespaces interface {
	Namespace(ctx context.Context, name string) (Namespace, error)
}

// Options are all that is needed to answer. The zero value is refused.
type Options struct {
	// Config is what is injected. PodSecurity and CAGeneration are the namespace's and filled in for each pod.
	Config inject.Config

	Namespaces Namespaces

	// Writers are the users who may write bundles: control's service accounts, as system:serviceaccount:NAMESPACE:NAME.
	Writers []string

	Logger *slog.Logger

	// Observe, if not nil, is told of every answer. It is called by many at once and must not block.
	Observe func(Observation)
}

// Observation is one answer, for metrics.
type Observation struct {
	Path     string // one of the paths
	Outcome  Outcome
	Duration time.Duration // until the answer is made
}

// Outcome is what became of a question.
type Outcome string

// Outcomes. What is Failed counts as a refusal for the API server, and is a fault of ours or of who sent it.
const (
	Allowed  Outcome = "allowed"
	Injected Outcome = "injected"
	Refused  Outcome = "refused"
	Failed   Outcome = "failed"
)

// review decides one question. An error that is an inject.Refusals or a refusal is the answer; every other means that the
// question could not be decided, which refuses as well.
type review func(ctx context.Context, req *admissionv1.AdmissionRequest) (verdict, error)

// verdict is an answer that allows.
type verdict struct {
	patch    []byte // RFC 6902; nil if nothing is changed
	warnings []string
}

// refusal is an answer that does not allow, for the user to read.
type refusal struct{ error }

func refusef(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }

// New returns the handler of all webhooks.
func New(o Options) (http.Handler, error) {
	switch {
	case o.Namespaces == nil:
		return nil, errors.New("admission: nothing to look namespaces up with")
	case o.Logger == nil:
		return nil, errors.New("admission: no logger")
	}
	probe := o.Config
	probe.CAGeneration = 1
	if err := probe.Validate(); err != nil {
		return nil, fmt.Errorf("admission: %w", err)
	}
	mux, slots, room := http.NewServeMux(), make(chan struct{}, maxAtOnce), new(room)
	for path, decide := range map[string]review{
		PathMutatePod: o.mutatePod, PathValidatePod: o.validatePod, PathValidatePolicy: o.validatePolicy, PathValidateBundle: o.validateBundle,
	} {
		mux.Handle("POST "+path, &endpoint{path: path, decide: decide, o: &o, slots: slots, room: room})
	}
	return mux, nil
}

// endpoint is one path.
type endpoint struct {
	path   string
	decide review
	o      *Options
	slots  chan struct{} // has an element for every question that is decoded or decided; all endpoints share it
	room   *room         // for their texts; shared as well
}

// ServeHTTP answers one AdmissionReview with another. Whatever goes wrong before there is one to answer is a status of HTTP's.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	outcome := Failed
	defer func() {
		if cause := recover(); cause != nil {
			e.o.Logger.Error("admission panicked; the request is refused", "path", e.path, "cause", cause, "stack", string(debug.Stack()))
			http.Error(w, "aegrail-control failed; nothing is admitted by that", http.StatusInternalServerError)
		}
		if e.o.Observe != nil {
			e.o.Observe(Observation{Path: e.path, Outcome: outcome, Duration: time.Since(began)})
		}
	}()
	refuse := func(status int, err error) {
		e.o.Logger.Warn("admission: not understood", "path", e.path, "error", err)
		http.Error(w, err.Error(), status)
	}
	from, size := addressOf(r), sizeOf(r)
	arrival, arrived := context.WithTimeout(r.Context(), readTimeout)
	defer arrived()
	if err := e.room.take(arrival, from, size); err != nil {
		refuse(http.StatusServiceUnavailable, err)
		return
	}
	defer e.room.give(from, size)
	body, status, err := read(w, r, size)
	if err != nil {
		refuse(status, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), decideTimeout)
	defer cancel()
	// Who sends slowly takes no place from others: one is taken when all of it is here.
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-ctx.Done():
		refuse(http.StatusServiceUnavailable, fmt.Errorf("%d reviews are under way already; try again", maxAtOnce))
		return
	}
	req, err := decode(body)
	if err != nil {
		refuse(http.StatusBadRequest, err)
		return
	}
	var answer *admissionv1.AdmissionResponse
	answer, outcome = e.answer(ctx, req)
	text, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"}, Response: answer,
	})
	if err != nil {
		outcome = Failed
		e.o.Logger.Error("admission: writing the answer", "path", e.path, "error", err)
		http.Error(w, "the answer cannot be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text) // who does not get it takes it for a refusal
}

// answer decides req.
func (e *endpoint) answer(ctx context.Context, req *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, Outcome) {
	v, err := e.decide(ctx, req)
	if err == nil {
		err = ctx.Err() // nobody waits for it any more
	}
	log := e.o.Logger.With("path", e.path, "operation", string(req.Operation), "resource", req.Resource.Resource, "subresource", req.SubResource,
		"namespace", req.Namespace, "name", req.Name, "user", req.UserInfo.Username)
	if err == nil {
		answer := &admissionv1.AdmissionResponse{UID: req.UID, Allowed: true, Warnings: v.warnings}
		if v.patch == nil {
			return answer, Allowed
		}
		answer.Patch, answer.PatchType = v.patch, new(admissionv1.PatchTypeJSONPatch)
		return answer, Injected
	}
	code, reason, outcome, message := int32(http.StatusForbidden), metav1.StatusReasonForbidden, Refused, err.Error()
	var forPod inject.Refusals
	var forUser refusal
	if errors.As(err, &forPod) || errors.As(err, &forUser) {
		log.Info("admission: refused", "reason", message)
	} else {
		code, reason, outcome = http.StatusInternalServerError, metav1.StatusReasonInternalError, Failed
		message = "aegrail-control cannot decide: " + message
		log.Error("admission: undecided, so refused", "error", err)
	}
	return &admissionv1.AdmissionResponse{UID: req.UID, Result: &metav1.Status{Status: metav1.StatusFailure, Message: message, Reason: reason, Code: code}}, outcome
}

// addressOf is whose share of the room r takes.
func addressOf(r *http.Request) string {
	address, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return address
}

// read takes the question's text of at most size bytes, or says with which status it is refused.
func read(w http.ResponseWriter, r *http.Request, size int) ([]byte, int, error) {
	// A writer without deadlines is a test's; the server's own has them.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout))
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, http.StatusUnsupportedMediaType, fmt.Errorf("the Content-Type is %q and must be application/json", r.Header.Get("Content-Type"))
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxReview)
	body, err := readAll(r, size)
	if large := new(http.MaxBytesError); errors.As(err, &large) {
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("the review is larger than %d bytes", large.Limit)
	}
	if err != nil {
		return nil, http.StatusBadRequest, fmt.Errorf("reading the review: %w", err)
	}
	if n := elements(body); n > maxElements {
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("the review has %d values, more than %d", n, maxElements)
	}
	return body, 0, nil
}

// decode understands the question.
func decode(body []byte) (*admissionv1.AdmissionRequest, error) {
	var in admissionv1.AdmissionReview
	if err := kubejson.Unmarshal(body, &in); err != nil {
		return nil, fmt.Errorf("the review is not JSON of its kind: %w", err)
	}
	if in.APIVersion != admissionv1.SchemeGroupVersion.String() || in.Kind != "AdmissionReview" || in.Request == nil || in.Request.UID == "" {
		return nil, fmt.Errorf("%q %q with a request and its UID is expected, and this is %q %q", admissionv1.SchemeGroupVersion, "AdmissionReview", in.APIVersion, in.Kind)
	}
	return in.Request, nil
}
