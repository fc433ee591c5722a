import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.stream.Stream;

/** The JDK's two clients, with proxy and trust from JAVA_TOOL_OPTIONS alone. */
public class Client {
  static final String HTTPS = "https://models.test";
  static final String HTTP = "http://models.test";
  static final byte[] BODY = new byte[5 << 20];
  static final Duration PATIENCE = Duration.ofSeconds(20);

  public static void main(String[] args) {
    for (HttpClient.Version version : HttpClient.Version.values()) {
      HttpClient client = HttpClient.newBuilder().version(version).build();
      String name = version.name();
      scenario(name + " get", () -> {
        HttpResponse<String> r = client.send(get(HTTPS + "/hello"), BodyHandlers.ofString());
        return r.version() + " " + r.body();
      });
      scenario(name + " keep-alive", () -> {
        for (int i = 0; i < 2; i++) client.send(get(HTTPS + "/hello"), BodyHandlers.ofString());
        return client.send(get(HTTPS + "/hello"), BodyHandlers.ofString()).body();
      });
      scenario(name + " plain http", () -> client.send(get(HTTP + "/hello"), BodyHandlers.ofString()).body());
      scenario(name + " upload", () -> client.send(post("/echo", BODY), BodyHandlers.ofString()).body());
      scenario(name + " stream", () -> stream(client, name));
      scenario(name + " denied path", () -> {
        HttpResponse<String> r = client.send(get(HTTPS + "/secret"), BodyHandlers.ofString());
        return r.statusCode() + " " + r.headers().firstValue("X-Aegrail-Reason").orElse("") + " " + r.body();
      });
      scenario(name + " denied upload", () -> {
        HttpResponse<String> r = client.send(post("/secret", BODY), BodyHandlers.ofString());
        return r.statusCode() + " " + r.body();
      });
      scenario(name + " after a denial", () -> client.send(get(HTTPS + "/hello"), BodyHandlers.ofString()).body());
      scenario(name + " denied host", () -> {
        HttpResponse<String> r = client.send(get("https://exfil.test/"), BodyHandlers.ofString());
        return r.statusCode() + " " + r.headers().firstValue("X-Aegrail-Reason").orElse("") + " " + r.body();
      });
    }
    scenario("URLConnection get", () -> read(open(HTTPS + "/hello")));
    scenario("URLConnection plain http", () -> read(open(HTTP + "/hello")));
    scenario("URLConnection upload", () -> {
      HttpURLConnection c = open(HTTPS + "/echo");
      c.setDoOutput(true);
      c.setChunkedStreamingMode(0);
      c.getOutputStream().write(BODY);
      c.getOutputStream().close();
      return read(c);
    });
    scenario("URLConnection denied path", () -> {
      HttpURLConnection c = open(HTTPS + "/secret");
      return c.getResponseCode() + " " + new String(c.getErrorStream().readAllBytes(), StandardCharsets.UTF_8);
    });
    scenario("URLConnection denied path, raised", () -> read(open(HTTPS + "/secret")));
    scenario("URLConnection denied host", () -> read(open("https://exfil.test/")));
  }

  static HttpRequest get(String url) {
    return HttpRequest.newBuilder(URI.create(url)).timeout(PATIENCE).build();
  }

  static HttpRequest post(String path, byte[] body) {
    return HttpRequest.newBuilder(URI.create(HTTPS + path)).timeout(PATIENCE).POST(BodyPublishers.ofByteArray(body)).build();
  }

  static HttpURLConnection open(String url) throws IOException {
    return (HttpURLConnection) URI.create(url).toURL().openConnection();
  }

  static String read(HttpURLConnection c) throws IOException {
    try (BufferedReader in = new BufferedReader(new InputStreamReader(c.getInputStream(), StandardCharsets.UTF_8))) {
      return in.readLine();
    }
  }

  static String stream(HttpClient client, String name) throws Exception {
    List<String> events = new ArrayList<>();
    try (Stream<String> lines = client.send(get(HTTPS + "/events/" + name), BodyHandlers.ofLines()).body()) {
      for (String line : (Iterable<String>) lines::iterator) {
        if (!line.startsWith("data: ")) continue;
        if (events.isEmpty()) client.send(post("/release/" + name, new byte[0]), BodyHandlers.discarding());
        events.add(line.substring(6));
      }
    }
    return String.join(" ", events);
  }

  /** Prints a line of JSON, [name, what came of it]; an exception as its own words. */
  static void scenario(String name, Callable<String> run) {
    String came;
    try {
      came = run.call();
    } catch (Exception e) {
      StringBuilder words = new StringBuilder();
      for (Throwable at = e; at != null; at = at.getCause()) words.append(at).append(" / ");
      came = words.toString();
    }
    System.out.println("[" + quote(name) + "," + quote(came) + "]");
  }

  static String quote(String s) {
    StringBuilder b = new StringBuilder("\"");
    for (char c : s.toCharArray()) {
      if (c == '"' || c == '\\') b.append('\\').append(c);
      else if (c < ' ') b.append(String.format("\\u%04x", (int) c));
      else b.append(c);
    }
    return b.append('"').toString();
  }
}
