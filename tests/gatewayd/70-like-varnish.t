#!/usr/bin/env perl

# The same requests and purges to a real Varnish, with a VCL that says what the response cache promises, and to gatewayd; both in
# front of one origin whose answers are numbered. What differs is named in %EXPLAINED, and only there.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use EG::Loop;
use Digest::SHA qw(sha256_hex);
use IO::Socket::INET;
use Time::HiRes ();

my ($varnishd) = grep { -x } '/usr/sbin/varnishd', '/usr/local/sbin/varnishd';
plan skip_all => 'no varnishd (Debian: varnish)' if !$varnishd;

my ($TTL, $GRACE) = (1.5, 1.5);
my $TOKEN = 'likewise';

# ---- What differs, and why. step => reason ----

my %EXPLAINED = (
	'error 500: second' => 'gatewayd remembers nothing of an error; Varnish marks it as not to be kept (hit-for-miss)',
	'error 429: second' => 'the same',
	'post one element in a list' => 'an element is an element, in a list or alone: gatewayd has it, Varnish knows whole bodies',
	'post two, one known' => 'gatewayd buys what is missing and gives the other as it was; Varnish asks for both',
	'post float and base64' => 'formats are views of one vector: gatewayd has it',
	'post at another path' => 'embeddings belong to both paths',
	'post after a purge of its body hash' => 'the whole answer goes, the embedding stays: gatewayd makes the answer again without a purchase',
	(map { ("post $_: second" => 'of embeddings only a validated 200 is kept') } '404', 'answered 429', 'answered 500'),
	'post with a cookie: first' => 'an embedding is of its text alone: a cookie, which is never sent on, does not matter to gatewayd',
	'post with a cookie: second' => 'the same',
	(map { my $what = $_; map { ("$what: $_" => 'what was asked for before a purge does not enter gatewayd after it; bans in Varnish pass over what is being fetched, and it is kept') }
		'after', 'again' } map { my $kind = $_; map { "$kind while purged by $_" } qw(all path tag) } qw(get post)),
	"get while purged by the answer's tag: after" => 'the same',
	"get while purged by the answer's tag: again" => 'the same',
	(map { ("post answered with $_: second" => 'an embedding is of its text alone, whatever its provider says of cookies and of keeping one answer') } qw(cookie nostore)),
	'post stale: then' => 'a stale embedding is looked up in the store, not bought again, and there is no store here: it stays what it is until its grace is over',
);

# ---- The origin ----

# What it says in its answers, by the request's c=, or model.
my @UNSHARED = (
	cookie => [ 'Set-Cookie' => 'a=b' ], private => [ 'Cache-Control' => 'private' ], nocache => [ 'Cache-Control' => 'no-cache' ],
	nostore => [ 'Cache-Control' => 'no-store' ], upper => [ 'Cache-Control' => 'No-Store' ], named => [ 'Cache-Control' => 'private="X-Mine"' ],
	among => [ 'Cache-Control' => 'public,max-age=60 , no-cache' ], second => [ 'Cache-Control' => 'max-age=60', 'Cache-Control' => 'no-store' ],
	surrogate => [ 'Surrogate-Control' => 'no-store' ], surrogate2 => [ 'Surrogate-Control' => 'max-age=60', 'Surrogate-Control' => 'no-store' ],
	vary => [ Vary => '*' ], vary2 => [ Vary => 'Accept', Vary => '*' ],
);
my @SHARED = (
	plain => [], maxage => [ 'Cache-Control' => 'max-age=60' ], past => [ 'Cache-Control' => 'max-age=0, must-revalidate' ],
	public => [ 'Cache-Control' => 'public, s-maxage=60' ], like => [ 'Cache-Control' => 'x-private, no-storeroom' ],
	varyx => [ Vary => 'X-Something' ], tags => [ 'Surrogate-Key' => 'red green' ], tags2 => [ 'Surrogate-Key' => 'red', 'Surrogate-Key' => 'green' ],
);
my %HEADERS = (@UNSHARED, @SHARED);

my $origin = do {
	my $listener = listen_tcp();
	my $port = $listener->sockport;
	my $pid = fork // die "fork: $!";
	if (!$pid) { serve_origin($listener); require POSIX; POSIX::_exit(0) }
	{ pid => $pid, port => $port };
};

sub origin_answer
{
	my ($q, $count) = @_;
	my ($target, $auth) = ($q->{target}, $q->{headers}{authorization} // '');
	if ($q->{method} eq 'POST') {
		my $body = json_decode($q->{body});
		my $input = ref $body->{input} ? $body->{input} : [ $body->{input} ];
		return (404, [], '{"error":{"message":"no"}}') if $body->{model} eq 'none';
		return ($1, [], '{"error":{"message":"no"}}') if $body->{model} =~ /^s=(\d+)/;
		my $serial = ++$count->{"@$input"};
		my @data = map { { object => 'embedding', index => $_, embedding => [ $serial + 0.5, 1 ] } } 0 .. $#$input;
		return (200, $HEADERS{ $body->{model} } // [], json_encode({ object => 'list', model => $body->{model}, data => \@data, usage => { prompt_tokens => 3, total_tokens => 3 } }));
	}
	my ($case) = $target =~ /[?&]c=([^&]+)/;
	my ($status) = $target =~ /[?&]s=(\d+)/;
	return ($status // 200, $HEADERS{ $case // '' } // [], json_encode({ id => "$target " . ++$count->{"$auth $target"} }));
}

sub serve_origin
{
	my ($listener) = @_;
	my ($loop, %count, @held, $hold) = (EG::Loop->new);
	$SIG{PIPE} = 'IGNORE';
	$listener->blocking(0);
	my $accept = sub {
		my $sock = $listener->accept or return;
		my $parser = EG::HTTP::Parser->new('request');
		$loop->on_read($sock, sub {
			my $n = sysread $sock, my $data, 65536;
			if (!$n) { $loop->forget($sock); close $sock; return }
			while (my $q = $parser->feed($data)) {
				$data = undef;
				my ($server) = ($q->{headers}{host} // '') =~ /gw/ ? 'gw' : ($q->{headers}{'x-varnish'} ? 'v' : 'gw');
				my $send = sub {
					my ($status, $headers, $body) = @_;
					my $out = "HTTP/1.1 $status X\r\nContent-Type: application/json\r\nContent-Length: " . length($body) . "\r\n";
					my @h = @$headers;
					while (my ($name, $value) = splice @h, 0, 2) { $out .= "$name: $value\r\n" }
					syswrite $sock, "$out\r\n" . ($q->{method} eq 'HEAD' ? '' : $body);
				};
				if ($q->{target} eq '/_hold') { $hold = 1; $send->(200, [], '{}') }
				elsif ($q->{target} eq '/_held') { $send->(200, [], scalar @held) }
				elsif ($q->{target} eq '/_release') { $hold = 0; $_->() for splice @held; $send->(200, [], '{}') }
				else {
					my @answer = origin_answer($q, $count{$server} //= {});
					if ($hold) { push @held, sub { $send->(@answer) } } else { $send->(@answer) }
				}
			}
		});
	};
	$loop->on_read($listener, $accept);
	$loop->run;
	return;
}

sub control { return http('GET', "http://127.0.0.1:$origin->{port}/_$_[0]")->{body} }

# ---- The two caches ----

my $VCL = <<"VCL";
vcl 4.1;
import std;
backend origin { .host = "127.0.0.1"; .port = "$origin->{port}"; }
sub vcl_recv {
	unset req.http.X-Pass;
	std.collect(req.http.Surrogate-Key, " ");
	if (req.method == "PURGE") {
		if (req.http.Authorization != "Bearer $TOKEN") { return (synth(403, "Forbidden")); }
		if (req.http.X-Purge-All == "true") { ban("obj.status != 0"); }
		elsif (req.http.Surrogate-Key) { ban("obj.http.X-Tags ~ (^|\\s)(" + regsuball(req.http.Surrogate-Key, " +", "|") + ")(\\s|\$)"); }
		elsif (req.http.X-Body-Hash) { ban("obj.http.X-Of-Body == " + req.http.X-Body-Hash); }
		else { ban("obj.http.X-Of-Url == " + req.url); }
		return (synth(200, "Purged"));
	}
	if (req.http.Cookie) { return (pass); }
	if (req.method == "POST" && req.url ~ "^(/openai)?/v1/embeddings") {
		std.cache_req_body(1MB);
		return (hash);
	}
	if (req.method == "GET" || req.method == "HEAD") { return (hash); }
	return (synth(405, "Method Not Allowed"));
}
sub vcl_hash {
	hash_data(req.http.X-Body-Hash);
	hash_data(req.url);
	hash_data(req.http.Host);
	if (req.method == "POST") { hash_data("POST"); } else { hash_data(req.http.Authorization); }
	return (lookup);
}
sub vcl_backend_fetch {
	if (bereq.url ~ "embeddings") { set bereq.method = "POST"; }
}
sub vcl_backend_response {
	std.collect(beresp.http.Cache-Control);
	std.collect(beresp.http.Surrogate-Control);
	std.collect(beresp.http.Vary);
	std.collect(beresp.http.Surrogate-Key, " ");
	set beresp.ttl = ${TTL}s;
	set beresp.grace = ${GRACE}s;
	set beresp.http.X-Of-Url = bereq.url;
	set beresp.http.X-Of-Body = bereq.http.X-Body-Hash;
	set beresp.http.X-Tags = beresp.http.Surrogate-Key + " " + bereq.http.Surrogate-Key;
	unset beresp.http.Surrogate-Key;
	if (beresp.http.Set-Cookie || beresp.http.Cache-Control ~ "(?i)(^|[ ,])(private|no-cache|no-store)([ ,=]|\$)" || beresp.http.Surrogate-Control ~ "no-store" ||
		beresp.http.Vary ~ "(^|[ ,])[*]" || (beresp.status != 200 && beresp.status != 203 && beresp.status != 301 && beresp.status != 404 && beresp.status != 410)) {
		set beresp.uncacheable = true;
		set beresp.ttl = 120s;
	} else {
		unset beresp.http.Vary;
	}
	return (deliver);
}
sub vcl_hit { set req.http.X-Stale = "0"; if (obj.ttl <= 0s) { set req.http.X-Stale = "1"; } return (deliver); }
sub vcl_miss { if (req.is_hitmiss) { set req.http.X-Pass = "1"; } return (fetch); }
sub vcl_pass { set req.http.X-Pass = "1"; return (fetch); }
sub vcl_deliver {
	if (obj.hits > 0 && req.http.X-Stale == "1") { set resp.http.X-Cache = "STALE"; }
	elsif (obj.hits > 0) { set resp.http.X-Cache = "HIT"; }
	elsif (req.http.X-Pass) { set resp.http.X-Cache = "PASS"; }
	else { set resp.http.X-Cache = "MISS"; }
	return (deliver);
}
VCL
spew(test_path('like.vcl'), $VCL);
my $varnish_port = do { my $s = listen_tcp(); my $p = $s->sockport; close $s; $p };
my $varnish = process('varnish', [ $varnishd, '-F', '-j', 'none', '-n', test_path('varnish'), '-f', test_path('like.vcl'), '-a', "127.0.0.1:$varnish_port", '-s',
	'malloc,64m', '-T', 'none', '-p', 'ban_lurker_sleep=0.01', '-p', 'default_grace=10', '-p', 'workspace_client=128k' ]);
wait_for { IO::Socket::INET->new("127.0.0.1:$varnish_port") } 'varnishd';
my $gateway = daemon('gatewayd', http => 1, rpc => 'gatewayd.0.sock', env => { OPENAI_BASE_URL => "http://127.0.0.1:$origin->{port}/v1", STORE => 'none',
	PROVIDER_ENCODING => 'float', MAX_RETRIES => 0, CIRCUIT_BREAKER_THRESHOLD => 1000, PURGE_TOKEN => $TOKEN, CACHE_TTL => int($TTL * 1000) . 'ms', CACHE_GRACE => int($GRACE * 1000) . 'ms' });
my %url = (varnish => "http://127.0.0.1:$varnish_port", gatewayd => $gateway->url);

# ---- Steps ----

my ($steps, %differs) = (0);

# What a client sees, as far as both can say the same.
sub seen
{
	my ($r) = @_;
	my $json = eval { json_decode($r->{body}) } // {};
	my $serial = $json->{data} ? join '+', map { int $_->{embedding}[0] } @{ $json->{data} } : $json->{id} ? $json->{id} =~ s/.* //r : '-';
	return "$r->{status} " . ($r->{headers}{'x-cache'} // '-') . " #$serial";
}

sub send_to
{
	my ($which, $method, $target, $headers, $body) = @_;
	my @h = ('Host' => 'cache.test', Authorization => 'Bearer sk-one', @{ $headers // [] });
	my %seen;
	my @last; # the last one of a name counts, but of tags
	for (my $i = @h - 2; $i >= 0; $i -= 2) { unshift @last, @h[ $i, $i + 1 ] if !$seen{ lc $h[$i] }++ || $h[$i] eq 'Surrogate-Key' }
	push @last, 'Content-Type' => 'application/json' if defined $body;
	push @last, 'X-Body-Hash' => sha256_hex($body // '') if $which eq 'varnish' && $method ne 'PURGE';
	return http($method, $url{$which} . $target, \@last, $body);
}

sub compare
{
	my ($name, $varnish_saw, $gatewayd_saw) = @_;
	$steps++;
	$differs{$name} = "Varnish: $varnish_saw, gatewayd: $gatewayd_saw" if $varnish_saw ne $gatewayd_saw;
	return;
}
sub step
{
	my ($name, $method, $target, $headers, $body) = @_;
	compare($name, map { seen(send_to($_, $method, $target, $headers, $body)) } qw(varnish gatewayd));
	return;
}
sub purge
{
	my ($name, $target, @headers) = @_;
	compare($name, map { send_to($_, 'PURGE', $target, [ Authorization => "Bearer $TOKEN", @headers ])->{status} } qw(varnish gatewayd));
	return;
}
sub embed { my ($name, $input, %o) = @_; return step($name, 'POST', $o{path} // '/v1/embeddings', $o{headers}, json_encode({ model => $o{model} // 'm', input => $input, %{ $o{body} // {} } })) }
sub pass_time { my ($s) = @_; my $end = Time::HiRes::time() + $s; wait_for { Time::HiRes::time() >= $end } 'time'; return }

# Answers and requests of every kind, twice, by HEAD, purged by URL, twice again.
my %unshared = @UNSHARED;
for my $case (sort(keys %HEADERS), 's=203', 's=301', 's=404', 's=410') {
	my $target = '/v1/models?' . ($case =~ /=/ ? $case : "c=$case");
	step("get $case: $_", 'GET', $target) for 'first', 'second', 'third';
	step("get $case: HEAD", 'HEAD', $target) if !$unshared{$case};
	step("get $case: another key", 'GET', $target, [ Authorization => 'Bearer sk-two' ]);
	step("get $case: another host", 'GET', $target, [ Host => 'other.test' ]);
	step("get $case: another query", 'GET', "$target&more");
	purge("get $case: purge another URL", "$target&nothing");
	step("get $case: kept", 'GET', $target);
	purge("get $case: purge", $target);
	step("get $case: after the purge", 'GET', $target);
	step("get $case: other key after the purge", 'GET', $target, [ Authorization => 'Bearer sk-two' ]);
	step("get $case: other host after the purge", 'GET', $target, [ Host => 'other.test' ]);
	step("get $case: other query is kept", 'GET', "$target&more");
}
step("error $_: first", 'GET', "/v1/models?s=$_"), step("error $_: second", 'GET', "/v1/models?s=$_") for 500, 429;
step("passed for a cookie: $_", 'GET', '/v1/models?c=plain&cookie', [ Cookie => 'a=b' ]) for 'first', 'second';
step('passed for a cookie: without', 'GET', '/v1/models?c=plain&cookie');

# Who may.
for my $auth ('Bearer wrong', 'Bearer', 'likewise') {
	compare("purge with $auth", map { send_to($_, 'PURGE', '/v1/models?c=plain', [ Authorization => $auth ])->{status} } qw(varnish gatewayd));
}
step('nothing was purged', 'GET', '/v1/models?c=plain');

# Tags.
for my $fields ('tags', 'tags2') {
	my @mine = map { ('Surrogate-Key' => $_) } $fields eq 'tags' ? 'mine ours' : ('mine', 'ours');
	for my $tag ('red', 'green', 'mine', 'ours', 'nothing', 'nothing else') {
		step("$fields, tag $tag: fill", 'GET', "/v1/models?c=$fields&t", \@mine);
		step("$fields, tag $tag: fill untagged", 'GET', '/v1/models?c=plain&t');
		purge("$fields, tag $tag: purge", '/', 'Surrogate-Key' => $tag);
		step("$fields, tag $tag: after", 'GET', "/v1/models?c=$fields&t", \@mine);
		step("$fields, tag $tag: untagged", 'GET', '/v1/models?c=plain&t');
	}
}

# Everything.
my @many = map { "/v1/models?c=plain&all=$_" } 1 .. 20;
for my $round ('fill', 'again') { step("all: $round $_", 'GET', $_) for @many }
purge('all: purge', '/', 'X-Purge-All' => 'true');
step("all: after $_", 'GET', $_) for @many;

# Embeddings.
embed("post: $_", 'a text') for 'first', 'second';
embed("post: other text $_", 'another text') for 'first', 'second';
embed('post: another key', 'a text', headers => [ Authorization => 'Bearer sk-two' ]);
embed('post one element in a list', ['a text']);
embed('post two, one known', [ 'a text', 'a third text' ]);
embed('post float and base64', 'a text', body => { encoding_format => 'float' });
embed('post at another path', 'a text', path => '/openai/v1/embeddings');
for my $tag ('blue', 'black') {
	my @tags = ('Surrogate-Key' => 'blue', 'Surrogate-Key' => 'black');
	embed("post tagged, $tag: $_", 'tagged text', headers => \@tags) for 'first', 'second';
	purge("post tagged, $tag: purge", '/', 'Surrogate-Key' => $tag);
	embed("post tagged, $tag: $_", 'tagged text', headers => \@tags) for 'after', 'again';
	embed("post tagged, $tag: other text", 'another text');
}
embed('post hashed: fill', 'hashed text');
purge('post hashed: purge', '/', 'X-Body-Hash' => sha256_hex(json_encode({ model => 'm', input => 'hashed text' })));
embed('post after a purge of its body hash', 'hashed text');
embed("post path: $_", 'path text') for 'first', 'second';
purge('post path: purge', '/v1/embeddings');
embed("post path: $_", 'path text') for 'after', 'again';
embed("post 404: $_", 'x', model => 'none') for 'first', 'second';
for my $case (qw(tags tags2)) {
	embed("post answered with $case: $_", "text with $case", model => $case) for 'first', 'second';
	purge("post answered with $case: purge", '/', 'Surrogate-Key' => 'green');
	embed("post answered with $case: $_", "text with $case", model => $case) for 'after', 'again';
	embed("post answered with $case: other text", 'another text');
}
for my $case (qw(cookie nostore)) { embed("post answered with $case: $_", "text with $case", model => $case) for 'first', 'second' }
for my $status (429, 500) { embed("post answered $status: $_", 'x', model => "s=$status", headers => [ Authorization => 'Bearer sk-three' ]) for 'first', 'second' }
embed("post with a cookie: $_", 'cookie text', headers => [ Cookie => 'a=b' ]) for 'first', 'second';

# A purge during a fetch.
for ([ get => 'all' ], [ get => 'path' ], [ get => 'tag' ], [ get => "the answer's tag" ], [ post => 'all' ], [ post => 'path' ], [ post => 'tag' ]) {
	my ($kind, $by) = @$_;
	my $name = "$kind while purged by $by";
	my %c;
	my ($target, $body) = $kind eq 'get' ? ('/v1/models?c=tags&busy=' . $by =~ tr/a-z//cdr) : ('/v1/embeddings', json_encode({ model => 'm', input => "busy text, $by" }));
	my @purge = $by eq 'all' ? ('/', 'X-Purge-All' => 'true') : $by eq 'path' ? ($target) : ('/', 'Surrogate-Key' => $by eq 'tag' ? 'busy' : 'green');
	control('hold');
	for my $which (qw(varnish gatewayd)) {
		$c{$which} = EG::HTTP->new($url{$which});
		$c{$which}->send(EG::HTTP::format_request(uc $kind, $target, [ Host => 'cache.test', Authorization => 'Bearer sk-one', 'Surrogate-Key' => 'busy',
			$body ? ('Content-Type' => 'application/json') : (), 'X-Body-Hash' => sha256_hex($body // '') ], $body));
	}
	wait_for { control('held') == 2 } 'both wait for the origin';
	purge("$name: purge", @purge);
	control('release');
	compare($name, map { seen($c{$_}->response) } qw(varnish gatewayd));
	step("$name: after", uc $kind, $target, [], $body);
	step("$name: again", uc $kind, $target, [], $body);
}

# Time.
step('time: fresh', 'GET', '/v1/models?c=plain&time');
embed('post stale: fill', 'stale text');
pass_time($TTL + 0.2);
step('time: stale', 'GET', '/v1/models?c=plain&time');
embed('post stale', 'stale text');
for my $which (qw(varnish gatewayd)) {
	wait_for { seen(send_to($which, 'GET', '/v1/models?c=plain&time')) eq '200 HIT #2' } "$which refreshes";
}
step('time: refreshed', 'GET', '/v1/models?c=plain&time');
embed('post stale: then', 'stale text');
pass_time($TTL + $GRACE + 0.3);
step('time: gone', 'GET', '/v1/models?c=plain&time');
step('time: again', 'GET', '/v1/models?c=plain&time');
embed("post gone: first", 'text of an hour ago');

cmp_ok $steps, '>=', 200, "$steps requests and purges";
is_deeply [ sort keys %differs ], [ sort keys %EXPLAINED ], 'every difference is explained, and every explanation needed';
for my $name (sort keys %differs) {
	$EXPLAINED{$name} ? note "$name: $differs{$name}: $EXPLAINED{$name}" : diag "$name: $differs{$name}";
}
$varnish->stop;
kill 'TERM', $origin->{pid};
waitpid $origin->{pid}, 0;
done_testing;
