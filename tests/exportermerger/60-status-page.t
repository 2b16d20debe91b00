#!/usr/bin/env perl

# The status page in a real browser: what it shows is what the metrics say, light and dark, on a phone; it needs nothing
# from elsewhere; it goes on while daemons, and exportermerger itself, die and come back.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use EG::Pod;
use IPC::Open2 qw(open2);

my $node = "$FindBin::Bin/../lib/node/node_modules/playwright-core";
sub found { my ($name) = @_; return (grep { -x } map { "$_/$name" } split /:/, $ENV{PATH})[0] }
for my $program (qw(chromium node)) {
	plan skip_all => "$program is not installed (mk/deps test)" if !found($program);
}
plan skip_all => 'playwright-core is not installed (mk/deps test)' if !-d $node;

# It takes as long to come up as the pod does.
my $pid = open2(my $from, my $to, 'node', "$FindBin::Bin/browser.mjs", $node, found('chromium'));
END { if ($to) { close $to; waitpid $pid, 0; $? = 0 } }
sub browser
{
	my (%command) = @_;
	print $to json_encode(\%command), "\n";
	$to->flush;
	my $answer = json_decode(scalar <$from> // '{"error":"the browser is gone"}');
	die "$answer->{error} (" . json_encode(\%command) . ")\n" if $answer->{error};
	return $answer->{value};
}

my $pod = EG::Pod->new(env => { MAX_RETRIES => 0 });
my $merger = daemon('exportermerger', http => 1, rpc => 'exportermerger.sock',
	env => { MERGER_URLS => 'unix:hashd.sock unix:gatewayd.0.sock unix:gatewayd.1.sock' });
my @models = qw(text-embedding-3-small text-embedding-3-large);
for my $i (0 .. 11) { $pod->embed('text ' . $i % 5, model => $models[ $i % 2 ]) }

sub js { return browser(eval => $_[0]) }
# The page asks every two seconds: that it does so by itself is seen once (0), after that it is told to.
sub wait_js { my ($js, $what, $step) = @_; my $r = eval { browser(wait => $js, ms => 1000 * $EG::Test::TIMEOUT, step => $step // 'void turn()') }; ok $r, $what or diag $@, js('document.body.innerText'); return $r }
sub open_page { my ($width, $scheme) = @_; browser(open => $merger->url . '/', width => $width, height => 800, scheme => $scheme); return browser(wait => '!document.getElementById("main").hidden') }
sub is_quiet { my ($what) = @_; return is_deeply browser(console => 1), [], $what // 'nothing on the console' }

subtest 'the answer' => sub {
	my $r = http('GET', $merger->url . '/');
	is $r->{status}, 200, 'GET /';
	like $r->{headers}{'content-type'}, qr{^text/html}, 'HTML';
	my $policy = $r->{headers}{'content-security-policy'};
	like $policy, qr/^default-src 'none'; style-src 'sha256-\S+'; script-src 'sha256-\S+'; connect-src 'self';/, 'a strict policy';
	unlike $policy, qr/unsafe|\*/, 'without holes';
	unlike $r->{body}, qr{(?:src|href)="(?!data:|metrics")}, 'nothing is loaded';
	unlike $r->{body}, qr{https?://(?!www\.w3\.org/2000/svg)}, 'from anywhere';
	is http('GET', $merger->url . '/', [ 'If-None-Match' => $r->{headers}{etag} ])->{status}, 304, 'the same again';
	my $packed = http('GET', $merger->url . '/', [ 'Accept-Encoding' => 'gzip' ]);
	is $packed->{headers}{'content-encoding'}, 'gzip', 'compressed';
	cmp_ok length $packed->{body}, '<', 20_000, 'and small';
	is http('POST', $merger->url . '/', [], 'x')->{status}, 405, 'POST';
	is http('HEAD', $merger->url . '/')->{body}, '', 'HEAD';
};

# ---- values ----

sub sum
{
	my ($page, $re) = @_;
	my $sum = 0;
	$sum += $1 while $page =~ /^$re(?:\{[^}]*\})? (\S+)$/mg;
	return $sum;
}
sub about { my ($got, $want, $what) = @_; return cmp_ok(abs($got - $want), '<=', 1e-9 + abs($want) * 1e-6, "$what: $want") || diag "got $got" }

open_page(1180, 'light');
subtest 'values are those of the metrics' => sub {
	my $page = http('GET', $merger->url . '/metrics')->{body};
	my $shown = js('Object.fromEntries([...document.querySelectorAll("#tiles > *")].map(e => [e.dataset.key, Number(e.querySelector("data").value)]))');
	about $shown->{requests}, sum($page, 'hashd_requests_total'), 'requests';
	about $shown->{saved}, sum($page, 'saved_tokens_total'), 'tokens saved';
	cmp_ok $shown->{saved}, '>', 0, 'more than none';
	about $shown->{dollars}, sum($page, 'saved_dollars_total'), 'dollars saved';
	my %tier = $page =~ /^gatewayd_elements_total\{merger_url="unix:gatewayd\.0\.sock",source="(\w+)"\} (\S+)$/mg;
	my %other = $page =~ /^gatewayd_elements_total\{merger_url="unix:gatewayd\.1\.sock",source="(\w+)"\} (\S+)$/mg;
	$tier{$_} += $other{$_} for keys %other;
	my $tiers = js('Object.fromEntries([...document.querySelectorAll("#tiers tbody tr")].map(e => [e.dataset.key, Number(e.querySelector("data").value)]))');
	is_deeply $tiers, { map { ($_ => 0 + $tier{$_}) } keys %tier }, 'embeddings by tier';
	about $shown->{ratio}, ($tier{memory} + $tier{store}) / ($tier{memory} + $tier{store} + $tier{joined} + $tier{bought}), 'hit ratio';
	my $models = js('Object.fromEntries([...document.querySelectorAll("#tokens tbody tr")].map(e => [e.dataset.key, [...e.querySelectorAll("data")].map(d => Number(d.value))]))');
	for my $model (@models) {
		about $models->{$model}[$_->[0]], sum($page, qq($_->[1]\\{merger_url="[^"]*",model="$model"\\})), "$_->[1] of $model" for [ 0, 'processed_tokens_total' ], [ 1, 'saved_tokens_total' ], [ 2, 'saved_dollars_total' ];
	}
	# The percentile as Prometheus would have it: between the bounds of the bucket that it falls in.
	my (%le, $below);
	$le{$1} += $2 while $page =~ /^hashd_request_duration_seconds_bucket\{merger_url="[^"]*",le="([^"]+)"\} (\S+)$/mg;
	my @bounds = sort { $a <=> $b } grep { $_ ne '+Inf' } keys %le;
	my ($bound) = grep { $le{$_} >= .99 * $le{'+Inf'} } @bounds;
	($below) = reverse grep { $_ < $bound } @bounds;
	cmp_ok $shown->{latency}, '<=', $bound, "p99 is at most $bound";
	cmp_ok $shown->{latency}, '>=', $below // 0, 'and in its bucket';
	my $steps = js('Object.fromEntries([...document.querySelectorAll("#steps tbody tr")].map(e => [e.dataset.key, [...e.cells].map(c => c.textContent)]))');
	is $steps->{'step provider'}[1], sum($page, 'gatewayd_provider_request_duration_seconds_count'), 'where the time goes: calls to the provider';
	is $steps->{'step dir'}[1], sum($page, 'gatewayd_store_look_up_duration_seconds_count'), 'and look-ups';
	is js('document.getElementById("sentence").textContent'), 'All is well', 'all is well';
	is_deeply js('[...document.querySelectorAll("#cache .node")].map(e => e.querySelector(".name").textContent + " " + e.querySelector(".state").textContent)'), [ 'gatewayd.0 up', 'gatewayd.1 up' ], 'the map';
	like js('document.getElementById("outside").textContent'), qr/well/, 'the provider';
	is js('document.getElementById("h-pod") && document.documentElement.lang'), 'en', 'language';
	is_quiet();
};

subtest 'what it knows nothing of' => sub {
	open_page(1180, 'light');
	wait_js('shots.length > 1', 'opened a moment ago');
	my $texts = 'document.querySelector("#provider th:nth-child(2)").textContent + "; " + document.getElementById("latency-note").textContent';
	like js($texts), qr/^last \d+ s; The last \d+ s\b/, 'the last seconds, not five minutes';
	like js('document.getElementById("window").textContent'), qr/Last \d+ s.: since you opened this page\./, 'says why';
	unlike js('document.body.innerText'), qr/five minutes|5 min/, 'nowhere five minutes';
	js('(shots[0].t -= WINDOW_MS, show(Date.now()))');
	like js($texts), qr/^last 5 min; The last five minutes\b/, 'five minutes later';
	unlike js('document.getElementById("window").textContent'), qr/opened/, 'nothing to explain';
	open_page(1180, 'light');
};

# ---- looks ----

# Every text against what is behind it (WCAG 2.1, 1.4.3), and no line that runs out of the window.
my $contrast = <<'JS';
(() => {
	const parse = c => { const m = c.match(/[\d.]+/g).map(Number); return { rgb: m.slice(0, 3), a: m[3] ?? 1 }; };
	const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
	const behind = el => { for (; el; el = el.parentElement) { const c = parse(getComputedStyle(el).backgroundColor); if (c.a === 1) return c.rgb; } return [255, 255, 255]; };
	const bad = [];
	for (const el of document.querySelectorAll("body *")) {
		if (![...el.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(el.tagName) || !el.getClientRects().length) continue;
		const s = getComputedStyle(el), a = light(parse(s.color).rgb), b = light(behind(el));
		const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
		if (ratio < (parseFloat(s.fontSize) >= 24 ? 3 : 4.5)) bad.push(`${el.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
	}
	return bad;
})()
JS
sub brightness { return js('(() => { const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number); return (r + g + b) / 3 })()') }
sub picture
{
	my ($name) = @_;
	my $file = ($ENV{EG_PICTURES} // test_dir()) . "/$name.png"; # EG_PICTURES=DIR keeps them
	browser(shot => $file);
	my $png = slurp($file);
	my ($width, $height) = unpack 'x16 N N', $png;
	cmp_ok length($png), '>', 15_000, "$name: a picture with something on it" or return;
	return ($width, $height);
}
# Each scheme and each width is one that the page is opened with, and one that it is changed to while it is open.
for (([ 'light', 1180 ], [ 'dark', 1180 ], [ 'dark', 360, 1 ], [ 'light', 360 ])) {
	my ($scheme, $width, $anew) = @$_;
	subtest "$scheme, $width wide" => sub {
		$anew ? open_page($width, $scheme) : browser(size => [ $width, 800 ], scheme => $scheme);
		$scheme eq 'light' ? cmp_ok(brightness(), '>', 200, 'light') : cmp_ok(brightness(), '<', 60, 'dark');
		is js('document.documentElement.scrollWidth'), $width, 'nothing runs out of the window';
		is_deeply js('[...document.querySelectorAll(".card, .banner, td, .big")].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)'), [], 'nor out of its box';
		is_deeply js($contrast), [], 'everything can be read';
		my ($w) = picture("$scheme-$width");
		is $w, $width, 'of that width';
		is_quiet();
	};
}
subtest 'the button of the theme' => sub {
	js('document.getElementById("theme").focus()');
	js('document.activeElement.click()') for 1 .. 2;
	is js('document.getElementById("theme").textContent'), 'Theme: dark', 'auto, light, dark';
	cmp_ok brightness(), '<', 60, 'dark';
	js('document.getElementById("theme").click()');
	is js('document.getElementById("theme").textContent'), 'Theme: auto', 'auto again';
	js('document.getElementById("pause").click()');
	is js('document.getElementById("live").textContent'), 'paused', 'pause';
	js('document.getElementById("pause").click()');
};

# ---- while things go wrong ----

browser(size => [ 1180, 800 ], scheme => 'light');
subtest 'a gatewayd dies and comes back' => sub {
	my $before = js('now().v.saved');
	$pod->gatewayd(1)->kill9;
	wait_js('/^gatewayd\.1 does not answer for \d+ s/.test(document.getElementById("sentence").textContent)', 'is said, with the time', 0);
	is js('document.querySelector("#cache [data-key=\'gatewayd.1\'] .state").textContent'), 'no answer', 'on the map';
	is js('document.querySelector("#said").textContent'), 'gatewayd.1 does not answer', 'and spoken once, without the seconds' if js('document.querySelector("#more").children.length') == 0;
	like js('document.title'), qr/^\(\d+\) gatewayd\.1 does not answer/, 'in the title';
	is js('now().v.saved'), $before, 'what it had saved is not lost';
	$pod->gatewayd(1)->start;
	$pod->wait_up;
	wait_js('document.getElementById("sentence").textContent === "All is well"', 'all is well again');
	$pod->embed('text 1', model => $models[1]) for 1 .. 3;
	wait_js("now().v.saved > $before", 'and what it saves after its new start counts on top');
	is_quiet();
};

subtest 'exportermerger itself is away' => sub {
	my $before = js('now().v.requests');
	$merger->kill9;
	wait_js('/^exportermerger does not answer for \d+ s: this is how it was at /.test(document.getElementById("sentence").textContent)', 'is said, with the time of what is shown');
	ok !js('document.getElementById("main").hidden'), 'the numbers stay';
	is js('document.body.className'), 'old', 'and look old';
	$merger->start;
	$merger->wait_ready;
	wait_js('document.getElementById("sentence").textContent === "All is well"', 'all is well again, in the same page');
	is js('document.body.className'), '', 'nothing looks old';
	cmp_ok js('now().v.requests'), '>=', $before, 'counters go on';
	is_deeply [ grep { !/Failed to load resource/ } @{ browser(console => 1) } ], [], 'nothing on the console but that it was away';
};

subtest 'the provider is down' => sub {
	$pod->openai->mode(fault => "status", status => 500);
	$pod->embed("new $_") for 1 .. 12;
	wait_js('/breaker of .* is open/i.test(document.getElementById("banner").textContent)', 'the breaker');
	is js('document.getElementById("banner").dataset.level'), 'bad', 'is bad';
	like js('document.getElementById("outside").textContent'), qr/breaker open/, 'on the map too';
	like js('document.getElementById("banner").textContent'), qr/of requests failed in the last (?:\d+ s|minute)/, 'and that requests fail';
	is_deeply js($contrast), [], 'everything can be read';
	is_quiet();
};

subtest 'many who look' => sub {
	my @r = http_many([ map { { url => $merger->url, target => '/status' } } 1 .. 20 ], connections => 20, timeout => 30);
	is scalar(grep { $_->{status} == 200 } @r), 20, 'all get it, beside the scrapes';
	like $r[0]{body}, qr/^gatewayd_requests_total\{/m, 'the pod';
	is http('POST', $merger->url . '/status', [], 'x')->{status}, 405, 'POST';
};

done_testing;
