package admission

// Conditions of the webhooks, as expressions of their matchConditions (CEL). An error in one refuses. That of the mutating
// webhook for labelled namespaces is none: all that is sent there is injected.
const (
	// MatchMutatePod is, in a namespace without the label, a pod that asks, or an ephemeral container of a pod that is injected.
	MatchMutatePod = "(" + toEphemeral + ") ? (" + wasMarked + ") : (" + asked + ")"

	// MatchValidateNamespace is, in a namespace with the label, everything but updates that change nothing of ours, resizes of pods without an
	// engine and connections to containers that are not ours.
	MatchValidateNamespace = "(" + toConnect + ") ? (" + oursConnected + ") : (" + toResize + ") ? (" + wasMarked + ") : (" + toUpdate + ") ? (" + changed + ") : true"

	// MatchValidatePod is, in a namespace without the label, a pod that asks or that bears what only injected pods may bear; and
	// the same updates, resizes and connections.
	MatchValidatePod = "(" + toConnect + ") ? (" + oursConnected + ") : (" + toEphemeral + " || " + toResize + ") ? (" + wasMarked + ") : (" + toUpdate + ") ? (" + changed + ")" +
		" : (" + asked + ") || (" + marked + ") || (" + tokened + ")"

	// MatchBundle is a bundle of CAs. A collection is deleted without a name in the request.
	MatchBundle = `(request.operation == "DELETE" ? oldObject : object).metadata.?name.orValue("") == "aegrail-ca-bundle"`
)

// What the conditions are made of.
const (
	toConnect   = `request.operation == "CONNECT"`
	toEphemeral = `request.?subResource.orValue("") == "ephemeralcontainers"`
	toResize    = `request.?subResource.orValue("") == "resize"`
	toUpdate    = `request.operation == "UPDATE" && request.?subResource.orValue("") == ""`

	oursConnected = `object.?container.orValue("") in ["aegrail-engine", "aegrail-init"]`

	// "false" is no question. Every other value is one, and is refused if it is not "true".
	asked = `object.metadata.?labels[?"aegrail.io/inject"].orValue("false") != "false"` +
		` || object.metadata.?annotations[?"aegrail.io/inject"].orValue("false") != "false"`

	marked = `object.metadata.?labels[?"aegrail.io/injected"].hasValue()` +
		` || object.metadata.?annotations[?"aegrail.io/engine-uid"].hasValue()` +
		` || object.metadata.?annotations[?"aegrail.io/ca-generation"].hasValue()`

	wasMarked = `oldObject.metadata.?labels[?"aegrail.io/injected"].hasValue()`

	tokened = `object.spec.?volumes.orValue([]).exists(v, v.?projected.?sources.orValue([]).exists(s, s.?serviceAccountToken.?audience.orValue("") == "aegrail-control"))`

	changed = `object.metadata.?labels[?"aegrail.io/inject"] != oldObject.metadata.?labels[?"aegrail.io/inject"]` +
		` || object.metadata.?labels[?"aegrail.io/injected"] != oldObject.metadata.?labels[?"aegrail.io/injected"]` +
		` || object.metadata.?annotations[?"aegrail.io/inject"] != oldObject.metadata.?annotations[?"aegrail.io/inject"]` +
		` || object.metadata.?annotations[?"aegrail.io/engine-uid"] != oldObject.metadata.?annotations[?"aegrail.io/engine-uid"]` +
		` || object.metadata.?annotations[?"aegrail.io/ca-generation"] != oldObject.metadata.?annotations[?"aegrail.io/ca-generation"]` +
		` || object.spec.?initContainers.orValue([]).map(c, c.image) != oldObject.spec.?initContainers.orValue([]).map(c, c.image)`
)
