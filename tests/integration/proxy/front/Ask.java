// Calls a chat completion as Java's own client does by default: HTTP/2 over cleartext, asked for by an Upgrade.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

public class Ask {
    public static void main(String[] given) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int call = 0; call < 2; call++) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(given[0]))
                .header("authorization", given[1])
                .header("content-type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(given[2]))
                .build();
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.version() + " " + answer.body());
        }
    }
}
