#!/usr/bin/env perl

# cachectl with buckets: checks, exports to one, imports what the Python gateway kept in one.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use EG::Radosgw;

my $MODEL = 'text-embedding-3-small';
my $s3 = EG::Radosgw->start;
$s3->python("for b in sys.argv[1:]: s3.create_bucket(Bucket=b)\n", qw(copy legacy));
my $openai = fake_openai();
my $store = test_path('store');
my $d = daemon('gatewayd', http => 1, env => { OPENAI_BASE_URL => $openai->base, OPENAI_API_KEY => 'sk-own', STORE_DIR => $store });
my %env = $s3->env;

sub ctl
{
	my ($more, @args) = @_;
	my ($exit, $out, $err) = run_tool({ %env, %$more }, 'cachectl', @args, '--json');
	my $r = eval { json_decode($out) } // {};
	return { %$r, exit => $exit, err => $err };
}

# More than one page of a listing.
my $N = 1100;
http_json($d->url . '/v1/embeddings', { input => [ map { "t$_" } 1 .. $N ], model => $MODEL, dimensions => 4 });
wait_for { $N == (my @all = glob "$store/embeddings/*") } 'the store';

my $r = ctl({}, 'export', 's3://copy', '--store', $store);
is "$r->{exit} $r->{copied}", "0 $N", 'exported' or diag $r->{err};
is ctl({}, 'export', 's3://copy', '--store', $store)->{there_already}, $N, 'once';
$r = ctl({}, 'verify', '--store', 's3://copy');
is "$r->{exit} $r->{good} $r->{bad}", "0 $N 0", 'verified' or diag explain $r->{problems};
$r = ctl({}, 'export', test_path('back'), '--store', 's3://copy');
is $r->{copied}, $N, 'and back';
is scalar(grep { slurp($_) ne slurp($_ =~ s{^\Q$store\E}{test_path('back')}er) } glob "$store/embeddings/*"), 0, 'byte for byte';
is $s3->python("print(s3.head_object(Bucket='copy', Key=s3.list_objects_v2(Bucket='copy')['Contents'][0]['Key'])['Metadata']['model'])\n"), "$MODEL\n",
	'with metadata';

$s3->python(<<'PY');
import time
objects = s3.list_objects_v2(Bucket='copy')['Contents']
def put(i, **more): s3.put_object(Bucket='copy', Key=objects[i]['Key'], Body=s3.get_object(Bucket='copy', Key=objects[i]['Key'])['Body'].read(), **more)
put(0, ContentEncoding='gzip', Metadata={'model': 'another'})
put(1, ContentEncoding='gzip', Metadata={'dimensions': '5'})
put(2)
put(3, ContentEncoding='gzip')
s3.put_object(Bucket='copy', Key=objects[4]['Key'], Body=b'', ContentEncoding='gzip')
# An epoch, as gatewayd writes it (67-purge-s3.t).
s3.put_object(Bucket='copy', Key='purges/all.%d.json' % (time.time() * 1000), Body=b'')
PY
$r = ctl({}, 'verify', '--store', 's3://copy');
is "$r->{exit} $r->{bad}", '1 4', 'wrong metadata, wrong encoding and an empty object are found';
is "$r->{good} $r->{purged}", '0 ' . ($N - 4), 'what was purged is counted apart, and bad objects stay bad';
like join(' ', sort map { $_->{problem} } @{ $r->{problems} }), qr/Content-Encoding.*another model.*other dimensions/, 'and named';

my $request = { input => [ 'o1', 'o2' ], model => $MODEL, dimensions => 4, user => 'u' };
my $answer = http_json($openai->base . '/embeddings', $request, [ Authorization => 'Bearer sk-x' ])->{json};
spew(test_path('lines'), json_encode({ body => json_encode($request), answer => $answer }) . "\n");
{
	local @ENV{ keys %env } = values %env;
	system "/usr/bin/python3 '@{[ eg_root() ]}/tests/lib/legacy_store' hashed s3://legacy < '@{[ test_path('lines') ]}' > /dev/null";
}
my $bodies = spew(test_path('bodies'), json_encode($request) . "\n");
$r = ctl({}, 'import', 's3://legacy', '--store', $store, '--requests', $bodies);
is "$r->{exit} $r->{copied} $r->{elements}", '0 1 2', 'imported and taken apart' or diag $r->{err};
my $calls = $openai->calls;
my $hit = http_json($d->url . '/v1/embeddings', $request);
is $hit->{headers}{'x-cache'}, 'HIT', 'served';
is_deeply $hit->{json}{data}, $answer->{data}, 'as it was';
is $openai->calls, $calls, 'without a purchase';

$r = ctl({ AWS_SECRET_ACCESS_KEY => 'wrong' }, 'verify', '--store', 's3://copy');
is $r->{exit}, 69, 'a wrong secret';
like $r->{err}, qr/SignatureDoesNotMatch: check AWS_SECRET_ACCESS_KEY/, 'says what to do';
is ctl({ AWS_ACCESS_KEY_ID => '' }, 'verify', '--store', 's3://copy')->{exit}, 64, 'no key';
is ctl({}, 'verify', '--store', 's3://a/b')->{exit}, 64, 'no bucket';

done_testing;
