package origin

import (
	"context"
	"errors"
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// maxMessage is what one gRPC message may have, both ways: more than the 4 MiB
// of gRPC's default, and so more than any window in between.
const maxMessage = 16 << 20

func (s *Servers) startGRPC() error {
	leaf, err := s.ca.leaf(GRPC)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(address(GRPC), "443"))
	if err != nil {
		return err
	}
	saw := func(method string) {
		// Every gRPC answer is 200 in HTTP; its status is in the trailers.
		s.saw(Request{Scheme: "https", Method: "POST", Host: GRPC, Path: method, Status: 200, Proto: "HTTP/2.0"})
	}
	server := grpc.NewServer(
		grpc.Creds(credentials.NewServerTLSFromCert(&leaf)), grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			defer saw(info.FullMethod)
			return h(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			defer saw(info.FullMethod)
			return h(srv, stream)
		}),
	)
	grpc_testing.RegisterTestServiceServer(server, testService{})
	s.closers = append(s.closers, func() error { server.Stop(); return nil })
	go func() { _ = server.Serve(ln) }()
	return nil
}

// testService is the part of gRPC's interoperability service that the clients
// use.
type testService struct {
	grpc_testing.UnimplementedTestServiceServer
}

// UnaryCall echoes the payload, or ends with the status that was asked for.
// Metadata "x-echo" comes back as header, "x-echo-bin" as trailer.
func (testService) UnaryCall(ctx context.Context, in *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get("x-echo"); len(v) > 0 {
		_ = grpc.SetHeader(ctx, metadata.Pairs("x-echo", v[0]))
	}
	if v := md.Get("x-echo-bin"); len(v) > 0 {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("x-echo-bin", v[0]))
	}
	if st := in.GetResponseStatus(); st.GetCode() != 0 {
		return nil, status.Error(codes.Code(st.GetCode()), st.GetMessage())
	}
	return &grpc_testing.SimpleResponse{Payload: in.GetPayload()}, nil
}

// StreamingInputCall says how many bytes came.
func (testService) StreamingInputCall(stream grpc.ClientStreamingServer[grpc_testing.StreamingInputCallRequest, grpc_testing.StreamingInputCallResponse]) error {
	size := 0
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&grpc_testing.StreamingInputCallResponse{AggregatedPayloadSize: int32(size)})
		}
		if err != nil {
			return err
		}
		size += len(in.GetPayload().GetBody())
	}
}

// StreamingOutputCall sends one message of each size that was asked for.
func (testService) StreamingOutputCall(in *grpc_testing.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[grpc_testing.StreamingOutputCallResponse]) error {
	for _, p := range in.GetResponseParameters() {
		out := &grpc_testing.StreamingOutputCallResponse{Payload: &grpc_testing.Payload{Body: make([]byte, p.GetSize())}}
		if err := stream.Send(out); err != nil {
			return err
		}
	}
	return nil
}

// FullDuplexCall echoes each message as it comes, before the next one comes.
func (testService) FullDuplexCall(stream grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error {
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&grpc_testing.StreamingOutputCallResponse{Payload: in.GetPayload()}); err != nil {
			return err
		}
	}
}
