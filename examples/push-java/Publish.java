import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;

/**
 * Sends an answer word by word to whoever is connected as a user, by whatever node. Plain Java 17, in one file:
 *
 * <pre>java Publish.java http://127.0.0.1:8089 123 "An answer, word by word"</pre>
 */
public class Publish {
    private final HttpClient http = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5)).build();
    private final URI send;

    Publish(String push) {
        send = URI.create(push + "/api/sse/send");
    }

    /** Sends one message. What is not answered with 200 was not taken, or nobody knows: with an id it may be sent again. */
    String send(String userId, String id, String message) throws Exception {
        String body = "{\"userId\":" + quote(userId) + ",\"id\":" + quote(id) + ",\"message\":" + message + "}";
        HttpRequest request = HttpRequest.newBuilder(send)
                .header("Content-Type", "application/json")
                .timeout(Duration.ofSeconds(10))
                .POST(HttpRequest.BodyPublishers.ofString(body))
                .build();
        for (int attempt = 1; ; attempt++) {
            HttpResponse<String> response = http.send(request, HttpResponse.BodyHandlers.ofString());
            if (response.statusCode() == 200) {
                return response.body();
            }
            if (response.statusCode() != 503 || attempt == 5) {
                throw new IllegalStateException(response.statusCode() + " " + response.body());
            }
            Thread.sleep(1000 * Long.parseLong(response.headers().firstValue("Retry-After").orElse("1")));
        }
    }

    static String quote(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c < ' ' || c == '"' || c == '\\') {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        return out.append('"').toString();
    }

    public static void main(String[] args) throws Exception {
        Publish publish = new Publish(args[0]);
        String answer = Long.toHexString(System.nanoTime());
        int n = 0;
        for (String word : args[2].split(" ")) {
            n++;
            String message = "{\"n\":" + n + ",\"word\":" + quote(word) + "}";
            System.out.print(publish.send(args[1], answer + "-" + n, message));
        }
    }
}
