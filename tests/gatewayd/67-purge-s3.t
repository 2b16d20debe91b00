#!/usr/bin/env perl

# Purges of a bucket on a real S3 server: epochs as objects, read page by page, seen by other pods; a directory in front of it; the server away.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use EG::Radosgw;
use Digest::SHA qw(sha256_hex);

my $M = 'text-embedding-3-small';
my $TOKEN = 's3-purge-token';
my $s3 = EG::Radosgw->start;
$s3->python("s3.create_bucket(Bucket='purged')\n");
my $openai = fake_openai();
my $n = 0;

sub gateway
{
	my (%env) = @_;
	my $pod = 'pod' . $n++;
	mkdir test_path($pod);
	return daemon('gatewayd', http => 1, rpc => "$pod/gatewayd.0.sock", env => { OPENAI_BASE_URL => $openai->base, OPENAI_API_KEY => 'sk-own',
		STORE => 's3', S3_BUCKET => 'purged', $s3->env, PURGE_TOKEN => $TOKEN, PURGE_REREAD => '300ms', RUN_DIR => test_path($pod), %env });
}
sub ask { my ($d, $input) = @_; my $r = http_json($d->url . '/v1/embeddings', { input => $input, model => $M, dimensions => 4 }); return $r->{headers}{'x-cache'} }
sub purge { my ($d, @h) = @_; my $r = http('PURGE', $d->url . '/', [ Authorization => "Bearer $TOKEN", @h ]); $r->{json} = eval { json_decode($r->{body}) }; return $r }
sub key_of { return sha256_hex(qq({"dimensions": 4, "input": "$_[0]", "model": "$M"})) }
sub names { my ($prefix) = @_; return @{ json_decode($s3->python("print(json.dumps([o['Key'] for o in s3.list_objects_v2(Bucket='purged', Prefix='$prefix').get('Contents', [])]))\n")) } }

my $d = gateway();
ask($d, $_) for 'one', 'two';
wait_for { names('embeddings/') == 2 } 'stored';

my $tiers = gateway(STORE => 'dir,s3', STORE_DIR => test_path('near'));
is ask($tiers, $_), 'HIT', "$_: a copy in the directory in front" for 'one', 'two';
wait_for { my @f = glob(test_path('near/embeddings/*')); @f == 2 } 'kept near';

is purge($d, 'X-Purge-Key' => key_of('one'), 'X-Purge-Store' => 'true')->{status}, 200, 'a key';
my @epochs = names('purges/');
is scalar @epochs, 1, 'one epoch';
like $epochs[0], qr{^purges/key\.@{[ key_of('one') ]}\.\d+\.json$}, 'named by its key and time';
wait_for { ask($tiers, 'one') eq 'MISS' } 'a pod that was not reached learns of it, and does not serve its near copy';
is ask($tiers, 'two'), 'HIT', 'no other';
my $late = gateway();
is ask($late, 'one'), 'MISS', 'one that starts later knows';
is ask($late, 'two'), 'HIT', 'no other';

# More epochs than a page of a list.
$s3->python(<<'PY', key_of('two'));
import concurrent.futures
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    list(pool.map(lambda i: s3.put_object(Bucket='purged', Key='purges/key.%064x.1500000000000.json' % i, Body=b'{}'), range(210)))
s3.put_object(Bucket='purged', Key='purges/key.%s.%d.json' % ('f' * 64, 1500000000000), Body=b'')
PY
my $paged = gateway();
is ask($paged, 'two'), 'HIT', 'answered';
my ($count) = http('GET', $paged->url . '/metrics')->{body} =~ /^gatewayd_store_epochs (\d+)$/m;
is $count, 212, 'all pages were read';

$s3->kill_gateway;
my $r = purge($d, 'X-Purge-All' => 'true', 'X-Purge-Store' => 'true');
is $r->{status}, 502, 'the server is away: the purge has failed';
is_deeply [ map { $_->{success} ? 1 : 0 } @{ $r->{json}{results} } ], [ 1, 0 ], 'in the store alone';
$s3->start_gateway;
is purge($d, 'X-Purge-All' => 'true', 'X-Purge-Store' => 'true')->{status}, 200, 'asked again when it is back';
wait_for { ask($paged, 'two') eq 'MISS' } 'and everybody learns of it';
wait_for { names('purges/') < 100 } 'what it covers is deleted';

done_testing;
