package admission

// AllowToken is what the API server asks itself about every token it is to make (CEL, of a ValidatingAdmissionPolicy): one
// by which control or a gateway knows a pod is made for kubelet alone, which asks for the pods it runs. An error refuses.
const AllowToken = `request.userInfo.?groups.orValue([]).exists(g, g == "system:nodes")` +
	` || !has(object.spec.audiences) || object.spec.audiences == null` +
	` || !object.spec.audiences.exists(a, a in ["aegrail-control", "aegrail-gateway"])`
